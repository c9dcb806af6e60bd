import json
from argparse import Namespace
from pathlib import Path
from types import SimpleNamespace
from typing import ClassVar

import pytest

from scalequest.domains.maths import solve_prompt
from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import FILTERED, RESPONSE, REWARD, read_rows, write_rows
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
