import json
from argparse import Namespace
from pathlib import Path
from typing import ClassVar

import pytest

from scalequest.models.chat import ChatFormat
from scalequest.params import Params
from scalequest.records import SCORE, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from scalequest.sampling import score as scoring
from stages import difficulty
from tests.fakes import changed


def test_what_screen_kept_is_scored_by_its_question_alone(
    tmp_path: Path, laptop: Params, chatml: ChatFormat, monkeypatch: pytest.MonkeyPatch
):
    class Scorer:
        """Scores a prompt with its number of tokens."""

        chat = chatml
        end: ClassVar[list[int]] = []

        def score(self, prompts: list[list[int]]) -> list[float]:
            assert all(chatml.decode(p).endswith("<|im_start|>assistant\n") for p in prompts)
            return [float(len(p)) for p in prompts]

    monkeypatch.setattr(scoring, "Scorer", lambda *_: Scorer())
    rows = [("sums", "A?", "kept"), ("sums", "", "cut"), ("stories", "Long?", "kept"), ("sums", "ABC?", "kept")]
    write_rows(
        tmp_path / "screened",
        [
            {"id": f"{g}/0/{i}", "generator": g, "question": q, "verdict": v, "matched": "", "evidence": ""}
            for i, (g, q, v) in enumerate(rows)
        ],
        SCREENED,
    )
    args = Namespace(
        model=tmp_path, screened=tmp_path / "screened", out=tmp_path / "difficulty", metrics=tmp_path / "m.json"
    )
    difficulty.main(args, StageRun(changed(laptop, difficulty={"shard_size": 2})))
    template = len(chatml.user_turn(""))
    assert read_rows(tmp_path / "difficulty", SCORE) == [
        {"id": "sums/0/0", "score": template + 2.0},
        {"id": "stories/0/2", "score": template + 5.0},
        {"id": "sums/0/3", "score": template + 4.0},
    ]
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics == {"questions": 3, "mean_score": {"sums": template + 3.0, "stories": template + 5.0}}
