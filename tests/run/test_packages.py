"""Packages that stages import and that are not installed are named before anything runs."""

import importlib.util
from pathlib import Path

import pytest

from scalequest.errors import UserError
from scalequest.params import Params
from scalequest.problems import meaning
from scalequest.run import packages, parallel
from scalequest.run.check import find_blockers
from tests.fakes import changed


def without(monkeypatch: pytest.MonkeyPatch, *names: str) -> None:
    """Let these modules look as if they were not installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(packages, "find_spec", lambda name: None if name in names else real(name))


def test_nothing_is_missing_here(laptop: Params):
    assert packages.find_missing(laptop, [script.stem for script in Path("stages").glob("[a-z]*.py")]) == []


@pytest.mark.parametrize(
    ("module", "stage", "distribution"),
    [
        ("lingua", "screen", "lingua-language-detector"),  # imported inside a function
        ("wordllama", "screen", "wordllama"),  # never imported: its files are read
        ("pebble", "reward_select", "pebble"),
        ("altair", "report", "altair"),
        ("trl", "qpo@sums", "trl"),
    ],
)
def test_a_missing_package_is_named_with_the_stage_that_wants_it(
    laptop: Params, monkeypatch: pytest.MonkeyPatch, module: str, stage: str, distribution: str
):
    without(monkeypatch, module)
    [line] = packages.find_missing(laptop, ["seeds", stage])
    assert line.startswith(
        f"the package {distribution} is not installed. Expected it for {stage.partition('@')[0]} (scalequest/"
    )
    assert packages.find_missing(laptop, ["seeds"]) == []


def test_a_package_that_the_parameters_do_not_use_may_be_missing(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "lingua", "mlflow", "ray", "liger_kernel")
    params = changed(laptop, screen={"language": "ascii"}, runtime={"mlflow": False})
    assert packages.find_missing(params, ["screen", "qft", "report"]) == []
    assert "mlflow" in packages.find_missing(changed(params, runtime={"mlflow": True}), ["seeds"])[0]


def test_models_say_which_packages_are_used(laptop: Params):
    def idle(source: str) -> set[str]:
        return packages.idle(changed(laptop, models=dict.fromkeys(laptop.models, source))) & {"gguf", "vllm"}

    assert idle("api:http://host/v1#model") == {"gguf", "vllm"}
    assert idle(f"hf:ORG/NAME@{'a' * 40}") == {"gguf"}
    assert idle(f"hf:ORG/NAME@{'a' * 40}#x.gguf#sha256={'b' * 64}") == set()
    assert idle(f"gguf:x.gguf#sha256={'b' * 64}") == set()


def test_an_import_that_may_fail_is_not_wanted(tmp_path: Path):
    file = tmp_path / "module.py"
    file.write_text(
        "import json, numpy\nfrom typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import pandas\n"
        "try:\n    import absent\nexcept ImportError:\n    absent = None\n"
        "try:\n    import one\nexcept (OSError, ModuleNotFoundError):\n    pass\ntry:\n    import two\nexcept:\n    pass\n"
        "with contextlib.suppress(ImportError):\n    import three\n"
        "with suppress(OSError):\n    import kept\n"
        "try:\n    import wanted\nexcept ValueError:\n    pass\nfinally:\n    pass\n"
        "try:\n    import said\nexcept ImportError as error:\n    raise OSError from error\n"
        "importlib.util.find_spec('read')\n"
    )
    assert packages.others(file) == {"numpy", "kept", "wanted", "said", "read"}


def test_check_and_parallel_name_it(laptop: Params, monkeypatch: pytest.MonkeyPatch):
    without(monkeypatch, "wordllama")
    assert "the package wordllama is not installed" in find_blockers(laptop)[0]
    parallel.check_packages(laptop, ["seeds"])
    with pytest.raises(UserError, match=r"the package wordllama is not installed.*\(scalequest/problems/meaning.py\)"):
        parallel.check_packages(laptop, ["seeds", "screen"])


def test_word_vectors_that_are_not_here_are_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(meaning, "find_spec", lambda name: None)
    meaning._model.cache_clear()
    with pytest.raises(UserError, match="word vectors of the package wordllama are not here"):
        meaning.meanings(["one"])
