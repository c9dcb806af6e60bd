"""A tiny Llama with a trained tokenizer, and parameters that run the whole DAG on it in minutes.

python -m tests.tiny OUT_DIR        # the model alone, to play with: models.student=path:OUT_DIR
"""

import random
import sys
from pathlib import Path
from typing import Any

from scalequest.params import ReasoningGymSource, read_yaml
from scalequest.prompts import ChatFormat
from scalequest.sources import load_problems

CHAT_TEMPLATE = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\n' + m['content'] + '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
VOCABULARY = 600
STEPS, BATCH = 150, 16
ROLES = ("optimizer", "judge", "solver", "difficulty", "reward", "student")


def make_tokenizer(out: Path) -> Any:
    """Byte-level BPE trained on seed problems; the padding token is not the end token, the unknown one is."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    texts = []
    for number, dataset in enumerate(("chain_sum", "leg_counting", "gsm_symbolic")):
        source = ReasoningGymSource(
            kind="reasoning_gym", dataset=dataset, n=60, seed=900_000_000 + number * 10**6, templates="all", config={}
        )
        texts += [p["question"] + "\n" + p["solution"] for p in load_problems(dataset, source, 0, need_solution=True)]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
        ),
    )
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>", pad_token="<|endoftext|>",
        unk_token="<|endoftext|>",
    )  # fmt: skip
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(out)
    return fast


def make_model(out: Path) -> Path:
    """Write the model folder: 2 layers, hidden 64, about 0.1M parameters, the same bytes every time.

    Trained for a few seconds to answer anything with a short sum: random weights end no turn, so that as an optimizer they
    would rewrite nothing, and the stages after it would have no input.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    tokenizer = make_tokenizer(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    chat = ChatFormat.of(tokenizer)
    draw = random.Random(0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(STEPS):
        sums = [f"What is {draw.randint(0, 99)} {draw.choice('+-*')} {draw.randint(0, 99)}?" for _ in range(2 * BATCH)]
        rows = [chat.user_turn(a) + chat.response(b) for a, b in zip(sums[::2], sums[1::2], strict=True)]
        width = max(map(len, rows))
        ids = torch.tensor([row + [tokenizer.pad_token_id] * (width - len(row)) for row in rows])
        labels = ids.masked_fill(ids == tokenizer.pad_token_id, -100)
        model(input_ids=ids, labels=labels).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.save_pretrained(out)
    return out


def tiny_params(laptop: Path, model: Path) -> dict[str, Any]:
    """The laptop's parameters, with the tiny model in every role and sizes to match."""
    params = read_yaml(laptop)
    params["models"] = dict.fromkeys((*ROLES, *params["mix"]), f"path:{model}")
    params["engine"] |= {"max_model_len": 1024, "max_num_seqs": 32}
    params["seeds"]["gsm_symbolic"]["n"] = 12
    for source in ("chain_sum", "products", "leg_counting"):
        params["seeds"][source]["n"] = 24
    params["generators"]["sums"] = {"seed_mix": {"chain_sum": 20, "products": 20}, "n_questions": 40}
    params["generators"]["stories"] = {"seed_mix": {"leg_counting": 20, "chain_sum": 20}, "n_questions": 40}
    for stage in ("solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune"):
        params[stage] |= {"per_device_batch_size": 8, "batch_size": 8, "lora_r": 4, "max_length": 512}
    # So small a model must be moved far before it learns anything: full fine-tuning, large steps.
    params["qft"] |= {"method": "full", "learning_rate": 1.0e-2, "epochs": 12}
    params["solver"] |= {"method": "full", "learning_rate": 1.0e-2, "epochs": 6}
    params["qpo_questions"] |= {"n_questions": 16, "max_tokens": 48, "shard_size": 8}
    # The tiny optimizer answers with some sum; it may be long against a short question.
    params["preferences"] |= {"max_tokens": 24, "temperature": 1.0, "max_growth": 50.0, "shard_size": 8}
    params["generate"] |= {"max_tokens": 48, "shard_size": 16}
    params["filter"] |= {"require_solvable": False, "n_questions": 24}
    params["judge"] |= {"shard_size": 16}
    params["difficulty_labels"] |= {"n_seeds": 16, "n_samples": 2, "max_tokens": 48, "shard_size": 8}
    params["respond"] |= {"n_samples": 2, "max_tokens": 48, "shard_size": 8}
    for source in params["benchmarks"].values():
        source["n"] = 8
    params["evaluate"] |= {"max_tokens": 32}
    return params


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))
