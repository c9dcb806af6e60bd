import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from scalequest.cli import main
from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.records import FILTERED, write_rows
from scalequest.run.preview import STAGES, Found, find_stage, in_words, picked_items, preview
from scalequest.sampling import questions, sample
from scalequest.sampling.completion import Completion
from scalequest.sampling.endpoint import ApiModel
from scalequest.sampling.remote import Remote
from tests.fakes import LAPTOP, ROOT, QueueEngine, cut


@pytest.fixture
def workspace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the laptop's parameters and 40 questions that passed the filters."""
    shutil.copy(LAPTOP, tmp_path / "params.yaml")
    rows = [
        {"id": f"sums/0/{n}", "generator": "sums", "question": f"What is {n} + {n}?", "difficulty": 0.5}
        for n in range(40)
    ]
    write_rows(tmp_path / "data/filtered.parquet", rows, FILTERED)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def files(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if path.is_file()}


RESPOND = ["stages.respond", "--model", "models/solver", "--questions", "data/filtered.parquet", "--out", "data/responses", "--metrics", "m.json"]  # fmt: skip


def test_prompts_and_answers_are_shown_and_nothing_is_written(
    workspace: Path, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch
):
    engine = QueueEngine(chatml, ["Four.", cut("It is"), "Eight."])
    monkeypatch.setattr(sample, "Engine", engine)
    before, shown = files(workspace), []
    preview(Found("respond", RESPOND, frozenset({"data/responses", "m.json"})), 3, shown.append)
    assert files(workspace) == before
    # 40 questions, 4 answers each: 160 requests, of which the first and those after each third are asked.
    assert shown[0] == "respond: 3 of 160 requests"
    assert len(engine.prompts) == 3
    for text, number, prompt in zip(shown[1:], (0, 13, 26), engine.prompts, strict=True):
        assert prompt in text  # the whole prompt, template included
        assert f"What is {number} + {number}?" in prompt
        assert "<|im_start|>assistant" in prompt
    assert "ended by itself:\nFour." in shown[1]
    assert "cut at max_tokens:\nIt is" in shown[2]


def test_the_answers_are_those_of_the_run(workspace: Path, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    """A row's seed is made of the run's seed, DVC's name of the stage and the row's id."""
    from scalequest.seeding import row_seed

    engine = QueueEngine(chatml, ["Four."])
    monkeypatch.setattr(sample, "Engine", engine)
    preview(Found("respond", RESPOND, frozenset()), 1, lambda text: None)
    assert engine.calls[0][1] == [row_seed(17, "respond", "sums/0/0#0")]


def test_questions_come_from_the_open_user_turn(workspace: Path, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch):
    engine = QueueEngine(chatml, ["What is 1 + 1?", "Why?"])
    monkeypatch.setattr(questions, "Engine", engine)
    command = [
        "stages.generate",
        "--generator",
        "sums",
        "--model",
        "models/qpo/sums",
        "--out",
        "data/questions/sums",
        "--metrics",
        "m.json",
    ]
    shown: list[str] = []
    preview(Found("generate@sums", command, frozenset({"data/questions/sums"})), 2, shown.append)
    assert shown[0] == "generate@sums: 2 of 160 requests"
    assert chatml.decode(chatml.question_prefix) in shown[1]
    assert shown[1].endswith("What is 1 + 1?")


def test_an_endpoint_gets_these_requests_only(workspace: Path, monkeypatch: pytest.MonkeyPatch):
    asked: list[Sequence[list[str]]] = []

    def complete(self: Any, conversations: Sequence[list[str]], *_: Any) -> list[Completion]:
        asked.append(conversations)
        return [Completion(f"Re: {turns[-1]}", "stop", 3) for turns in conversations]

    text = (workspace / "params.yaml").read_text()
    line = next(line for line in text.splitlines() if line.startswith("  solver: pypi:"))
    text = text.replace(line, "  solver: api:https://example.org/v1#big").replace(
        "solver:\n  method: lora", "solver:\n  method: none"
    )
    (workspace / "params.yaml").write_text(text)
    monkeypatch.setattr(ApiModel, "complete", complete)
    monkeypatch.setattr(ApiModel, "cost", lambda self: {})
    ask, before, shown = Remote.ask, files(workspace), []
    command = [word.replace("models/solver", "models/base/solver") for word in RESPOND]
    preview(Found("respond", command, frozenset()), 2, shown.append)
    assert [len(conversations) for conversations in asked] == [2]
    assert shown[0] == "respond: 2 of 40 conversations"
    assert "What is 20 + 20?" in shown[2]
    assert "Re: " in shown[2]
    assert Remote.ask is ask
    assert files(workspace) == before


def test_scores_are_shown_with_what_was_read():
    assert in_words(None, ("2 + 2?", "It is 4."), {"score": 0.25}) == "read:\n2 + 2?\nIt is 4.\n\nscore: 0.2500"


def test_items_are_picked_over_all_shards():
    shards = [(0, 7, list(range(10))), (1, 8, list(range(10, 20)))]
    assert picked_items(shards, 20, 4) == ([0, 5, 10, 15], 7)
    assert picked_items(shards, 20, 50) == (list(range(20)), 7)
    assert picked_items([], 0, 3) == ([], 0)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("filter", "preview filter: no stage that asks a model. Expected one of qpo_questions, preferences, generate"),
        ("judgement", "preview judgement: no stage that asks a model"),
        ("evaluate", "Run: scalequest evaluate models/student --tasks NAME --limit 5"),
    ],
)
def test_what_cannot_be_previewed_is_named(name: str, message: str):
    with pytest.raises(UserError, match=message):
        find_stage(name, ROOT)


def test_a_missing_input_names_the_stage_that_makes_it(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / ".dvc").mkdir()
    (tmp_path / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    (tmp_path / "dvc.yaml").write_text(
        "stages:\n  filter: {cmd: x, outs: [data/filtered.parquet]}\n"
        "  respond: {cmd: python -m stages.respond, deps: [data/filtered.parquet]}\n"
        "  generate:\n    matrix: {g: [sums, stories]}\n    cmd: x --generator ${item.g}\n"
    )
    (tmp_path / "params.yaml").touch()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["preview", "respond"])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert (
        "preview respond: data/filtered.parquet is not there. Expected the stage's inputs. Run: dvc repro filter"
        in error
    )
    with pytest.raises(
        UserError, match=r"generate@extra: not in dvc\.yaml\. Expected generate@sums or generate@stories"
    ):
        find_stage("generate@extra")
    assert find_stage("generate").name == "generate@sums"


def test_every_previewed_stage_is_one_of_dvc_yaml():
    from scalequest.params import read_yaml

    assert set(STAGES) <= set(read_yaml(ROOT / "dvc.yaml")["stages"])
