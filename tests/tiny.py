"""A tiny Llama with a trained tokenizer, and parameters that run the whole DAG on it in minutes.

python -m tests.tiny OUT_DIR        # the model alone, to play with: models.student=path:OUT_DIR
"""

import random
import sys
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.io import write_jsonl
from scalequest.models.chat import ChatFormat
from scalequest.models.folder import path_source
from scalequest.params import ReasoningGymSource, read_yaml
from scalequest.problems.sources import load_problems

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


def make_reward_model(model: Path, out: Path) -> Path:
    """The model with a scalar head drawn at random: a released reward model, as far as the pipeline can tell."""
    import torch
    from transformers import AutoModelForSequenceClassification

    from scalequest.models.weights import load_tokenizer, save_model

    torch.manual_seed(0)
    tokenizer = load_tokenizer(model)
    scorer = AutoModelForSequenceClassification.from_pretrained(model, num_labels=1)
    scorer.config.pad_token_id = tokenizer.pad_token_id
    save_model(scorer, tokenizer, out)
    return out


def tiny_params(laptop: Path, model: Path) -> dict[str, Any]:
    """The laptop's parameters, with a second generator, the tiny model in every role and sizes to match."""
    params = read_yaml(laptop)
    params["mix"] = ["sums", "stories"]
    params["models"] = dict.fromkeys((*ROLES, *params["mix"]), path_source(model))
    params["engine"] |= {"max_model_len": 1024, "max_num_seqs": 32}
    params["runtime"]["cpu_kv_cache_gib"] = 1  # vLLM fills it with zeros
    params["seeds"]["gsm_symbolic"]["n"] = 12
    for source in ("chain_sum", "products", "leg_counting"):
        params["seeds"][source]["n"] = 24
    params["generators"]["sums"] |= {"seed_mix": {"chain_sum": 20, "products": 20}, "n_questions": 40}
    params["generators"]["stories"] |= {"seed_mix": {"leg_counting": 20, "chain_sum": 20}, "n_questions": 40}
    for stage in ("solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune"):
        params[stage] |= {"per_device_batch_size": 8, "batch_size": 8, "lora_r": 4, "max_length": 512}
    # So small a model must be moved far before it learns anything: full fine-tuning, large steps.
    params["qft"] |= {"method": "full", "learning_rate": 1.0e-2, "epochs": 12}
    params["solver"] |= {"method": "full", "learning_rate": 1.0e-2, "epochs": 6}
    params["qpo_questions"] |= {"n_questions": 16, "max_tokens": 48, "shard_size": 8}
    # The tiny optimizer answers with some sum; it may be long against a short question.
    params["preferences"] |= {
        "max_tokens": 24,
        "temperature": 1.0,
        "max_growth": 50.0,
        "min_numbers": 0.0,
        "shard_size": 8,
    }
    params["generate"] |= {"max_tokens": 48, "shard_size": 8}
    params["filter"] |= {"require_solvable": False, "n_questions": 24}
    params["judge"] |= {"shard_size": 16}
    # So small a solver answers nothing right.
    params["reward_model"]["gold"] = True
    params["difficulty_labels"] |= {"n_seeds": 16, "n_samples": 2, "max_tokens": 48, "shard_size": 8}
    params["respond"] |= {"n_samples": 2, "max_tokens": 48, "shard_size": 8}
    for source in params["benchmarks"].values():
        source["n"] = 8
    params["evaluate"] |= {"max_tokens": 32}
    return params


def tiny_code_params(laptop_code: Path, model: Path, tasks: Path) -> dict[str, Any]:
    """The code laptop's parameters, with the tiny model, tasks from a file of ``write_code_tasks``, and sizes to match."""
    params = read_yaml(laptop_code)
    params["models"] = dict.fromkeys((*ROLES, *params["mix"]), path_source(model))
    params["models"]["reward"] = path_source(make_reward_model(model, model.with_name("reward")))
    params["engine"] |= {"max_model_len": 1024, "max_num_seqs": 32}
    params["runtime"]["cpu_kv_cache_gib"] = 1
    file = {"kind": "jsonl", "path": str(tasks), "sha256": sha256(tasks.read_bytes()).hexdigest()}
    params["seeds"] = {"mbpp_train": file | {"n": 32, "where": {"split": "train"}}}
    params["benchmarks"]["mbpp"] = file | {"n": 4, "where": {"split": "test"}}
    params["benchmarks"]["humaneval"]["n"] = 2
    params["generators"]["tasks"] |= {"seed_mix": {"mbpp_train": 32}, "n_questions": 24}
    for stage in ("solver", "qft", "qpo", "difficulty_model", "reward_model", "instruct_tune"):
        params[stage] |= {"per_device_batch_size": 8, "batch_size": 8, "lora_r": 4, "max_length": 512}
    # Long enough to write tasks: a question that asks for no program makes no preference pair.
    params["qft"] |= {"method": "full", "learning_rate": 1.0e-2, "epochs": 40}
    params["solver"] |= {"method": "full", "learning_rate": 1.0e-2, "epochs": 60}
    params["reward_model"] |= {"method": "none"}
    params["qpo_questions"] |= {"n_questions": 24, "temperature": 0.5, "max_tokens": 96, "shard_size": 24}
    params["preferences"] |= {
        "max_tokens": 32,
        "temperature": 1.0,
        "max_growth": 50.0,
        "min_numbers": 0.0,
        "shard_size": 24,
    }
    params["generate"] |= {"from": "qft", "max_tokens": 96, "shard_size": 24}
    params["screen"] |= {"near_duplicate_jaccard": 1.0}
    params["filter"] |= {"require_solvable": False, "n_questions": 12}
    params["difficulty_labels"] |= {"n_seeds": 12, "n_samples": 2, "max_tokens": 64, "shard_size": 12}
    # Cool, because one wrong token breaks a program.
    params["respond"] |= {"n_samples": 4, "temperature": 0.2, "max_tokens": 64, "shard_size": 16}
    params["evaluate"] |= {"max_tokens": 64, "dev_frac": 0.0, "samples": 2, "temperature": 0.2}
    # Each post is a process that imports MLflow; tests/test_dag.py looks at what is posted.
    params["runtime"]["mlflow"] = False
    return params


def write_code_tasks(path: Path) -> Path:
    """Forty tasks in MBPP's own form, alike enough for a model of 0.1M parameters to learn how an answer looks."""
    rows = []
    for number in range(40):
        name, value = ("add", "plus")[number % 2], number
        rows.append({
            "task_id": number, "text": f"Write a function that adds {value}.", "code": f"def {name}(x):\n    return x + {value}",
            "test_setup_code": "", "test_list": [f"assert {name}(1) == {1 + value}"], "challenge_test_list": [],
            "split": "train" if number < 34 else "test",
        })  # fmt: skip
    write_jsonl(path, rows)
    return path


if __name__ == "__main__":
    make_model(Path(sys.argv[1]))
