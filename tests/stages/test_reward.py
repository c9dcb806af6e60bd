import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from scalequest.domains.maths import solve_prompt
from scalequest.errors import UserError
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import FILTERED, RESPONSE, REWARD, read_rows, row_groups, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import score as scoring
from stages import reward
from tests.fakes import changed


def test_each_response_is_scored_with_its_own_question_and_the_asking_for_a_box(
    tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch
):
    seen: list[list[int]] = []

    class Scorer:
        """Scores 1.5, 2.5, ... in the order of the prompts."""

        chat = chatml
        end: ClassVar[list[int]] = []

        def score(self, prompts: list[list[int]]) -> list[float]:
            seen.extend(prompts)
            return [len(seen) - len(prompts) + i + 0.5 for i in range(1, len(prompts) + 1)]

    monkeypatch.setattr(scoring, "Scorer", lambda *_: Scorer())
    questions = [{"id": q, "generator": "a", "question": f"{q}?", "difficulty": 0.5} for q in ("x", "y")]
    write_rows(tmp_path / "filtered.parquet", questions, FILTERED)
    responses = [
        {"id": f"{q}#{k}", "question_id": q, "sample": k, "response": f"{q}{k}", "finish_reason": "stop", "n_tokens": 2}
        for q in ("y", "x") for k in (0, 1)
    ]  # fmt: skip
    write_rows(tmp_path / "responses", responses, RESPONSE)
    args = Namespace(
        model=tmp_path, questions=tmp_path / "filtered.parquet", responses=tmp_path / "responses",
        out=tmp_path / "rewards", metrics=tmp_path / "m.json",
    )  # fmt: skip
    reward.main(args, StageRun(changed(laptop, reward={"shard_size": 3})))
    # The paper's code leaves the asking out (docs/paper-differences.md, 16).
    assert seen == [chatml.solution(solve_prompt(f"{q}?"), f"{q}{k}") for q in ("y", "x") for k in (0, 1)]
    assert read_rows(tmp_path / "rewards", REWARD) == [
        {"id": "y#0", "question_id": "y", "sample": 0, "reward": 1.5},
        {"id": "y#1", "question_id": "y", "sample": 1, "reward": 2.5},
        {"id": "x#0", "question_id": "x", "sample": 0, "reward": 3.5},
        {"id": "x#1", "question_id": "x", "sample": 1, "reward": 4.5},
    ]
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics == {"responses": 4, "mean": 3.0, "lowest": 1.5, "highest": 4.5}


def test_a_released_reward_model_reads_closed_turns_and_its_own_end(
    tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    seen: list[list[int]] = []

    class Scorer:
        chat = SimpleNamespace(answered=lambda solved: [[len(q), len(r)] for q, r in solved], solutions=None)
        end: ClassVar[list[int]] = [99]

        def score(self, prompts: list[list[int]]) -> list[float]:
            seen.extend(prompts)
            return [0.0] * len(prompts)

    monkeypatch.setattr(scoring, "Scorer", lambda *_: Scorer())
    write_rows(tmp_path / "q.parquet", [{"id": "x", "generator": "a", "question": "Why?", "difficulty": 0.5}], FILTERED)
    row = {"id": "x#0", "question_id": "x", "sample": 0, "response": "So.", "finish_reason": "stop", "n_tokens": 2}
    write_rows(tmp_path / "responses", [row], RESPONSE)
    args = Namespace(
        model=tmp_path, questions=tmp_path / "q.parquet", responses=tmp_path / "responses", out=tmp_path / "rewards",
        metrics=tmp_path / "m.json",
    )  # fmt: skip
    reward.main(args, StageRun(changed(laptop, reward_model={"method": "none"})))
    # The prompt is the question with the asking for a boxed answer.
    assert seen == [[len(solve_prompt("Why?")), len("So."), 99]]
    # As the responder read it, so in its form.
    seen.clear()
    reward.main(args, StageRun(changed(laptop, reward_model={"method": "none"}, respond={"form": "short"})))
    assert seen == [[len(solve_prompt("Why?", "short")), len("So."), 99]]


@pytest.fixture
def answered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Responses to eight questions in the order of ``names``; both tables have row groups of two rows."""
    monkeypatch.setattr("scalequest.records.ROWS_PER_PART", 2)

    def make(names: str) -> reward.Answered:
        questions = [{"id": q, "generator": "a", "question": f"{q}?", "difficulty": 0.5} for q in "abcdefgh"]
        write_rows(tmp_path / "q.parquet", questions, FILTERED)
        responses = [
            {"id": f"{q}#0", "question_id": q, "sample": 0, "response": q * 2, "finish_reason": "stop", "n_tokens": 2}
            for q in names
        ]
        write_rows(tmp_path / "responses", responses, RESPONSE)
        return reward.Answered(tmp_path / "q.parquet", row_groups(tmp_path / "responses", RESPONSE), str.upper)

    return make


@pytest.mark.parametrize(("names", "most"), [("abcdefgh", 2), ("bbcccf", 4), ("hagbfced", 8)])
def test_few_prompts_are_made_at_once_and_each_response_finds_its_own(
    answered, monkeypatch: pytest.MonkeyPatch, names: str, most: int
):
    made: list[int] = []
    prompts = reward.Answered._prompts

    def counted(self: reward.Answered, first: int, last: int) -> dict[str, str]:
        found = prompts(self, first, last)
        made.append(len(found))
        return found

    monkeypatch.setattr(reward.Answered, "_prompts", counted)
    assert list(answered(names)) == [(f"{q.upper()}?", q * 2) for q in names]
    assert max(made) == most


def test_a_response_to_no_question_is_named_before_any_work(answered):
    with pytest.raises(UserError, match="question_id 'z' is not among the 8 rows"):
        answered("abz")
