from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.models.gguf import convert_gguf, name_special_tokens


def test_special_tokens_are_those_of_the_files_own_numbers(tmp_path: Path):
    """What transformers 5.17 made of SmolLM2: the turn's begin for its end, no padding, the end no special token."""
    from scalequest.models.chat import ChatFormat
    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(tmp_path)
    begin, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", None
    assert begin in ChatFormat.of(tokenizer).stop_ids
    name_special_tokens(tokenizer, {"bos_token_id": begin, "eos_token_id": end, "pad_token_id": end})
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token) == (
        "<|im_start|>",
        "<|im_end|>",
        "<|im_end|>",
    )
    assert tokenizer.unk_token == "<|endoftext|>", "a number that the file does not have changes nothing"
    assert ChatFormat.of(tokenizer).stop_ids == [end]
    with pytest.raises(UserError, match=r"gives 99999 as its eos token, .* none of the vocabulary's \d+ tokens"):
        name_special_tokens(tokenizer, {"eos_token_id": 99_999})


@pytest.mark.slow
def test_a_conversion_writes_the_files_own_end_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A GGUF reader that mistakes the end token, around a real tiny model."""
    import transformers

    from tests.tiny import make_model

    base = make_model(tmp_path / "base")
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    end = tokenizer.eos_token_id
    model.config.eos_token_id = end
    tokenizer.eos_token = tokenizer.bos_token
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", lambda *_, **__: model)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: tokenizer)
    convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    monkeypatch.undo()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == end
