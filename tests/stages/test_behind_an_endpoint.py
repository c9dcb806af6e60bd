"""Judge and solver behind an endpoint: asked with their own key, paid once, and the same rows as of an engine."""

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

import pytest

from scalequest.domains.maths import judge_turns, solve_prompt
from scalequest.errors import UserError
from scalequest.outcomes import RIGHT
from scalequest.params import Params
from scalequest.records import ATTEMPT, FILTERED, JUDGED, PROBLEM, RESPONSE, SCREENED, read_rows, write_rows
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.stage import StageRun
from stages import difficulty_labels, judge, respond
from tests.fakes import changed
from tests.scripted import Endpoint, completion, error

PRICES = {"usd_per_million_input": 3.0, "usd_per_million_output": 5.0}


def run_of(laptop: Params, folder: Path, stage: str, role: str, url: str, **sections: Any) -> StageRun:
    api = laptop.runtime.api.model_validate(
        laptop.runtime.api.model_dump() | {"by_role": {role: {"key_variable": "ROLE_KEY", "retries": 0} | PRICES}}
    )
    params = changed(laptop, models=laptop.models | {role: f"api:{url}#m"}, runtime={"api": api}, **sections)
    return StageRun(params, StageFacts(stage, folder))


def seeds(n: int) -> list[dict[str, Any]]:
    return [
        {"id": f"a/{i}", "source": "a", "stratum": "", "question": f"Tom has {i} apples and buys {i + 3}. How many?",
         "solution": "", "answer": str(2 * i + 3)} for i in range(n)
    ]  # fmt: skip


def questions(n: int) -> list[dict[str, Any]]:
    return [{"id": f"sums/0/{i}", "generator": "sums", "question": f"Q{i}?", "difficulty": 0.5} for i in range(n)]


def test_the_judge_is_asked_with_its_own_key_and_pays_once(
    laptop: Params, endpoint: Endpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("ROLE_KEY", "key-of-the-judge")
    monkeypatch.setenv(laptop.runtime.api.key_variable, "key-of-another")
    write_rows(tmp_path / "seeds.parquet", seeds(8), PROBLEM)
    kept = {"generator": "sums", "verdict": "kept"}
    screened = [{"id": f"sums/0/{i}", "question": f"What is {i} + {i}?"} | kept for i in range(4)]
    rows = [{field.name: row.get(field.name) for field in SCREENED} for row in screened]
    write_rows(tmp_path / "screened", rows, SCREENED)
    endpoint.answer = lambda body: (
        error(400, "content_filter", "content_filter") if "3 + 3" in str(body) else completion("Yes")
    )
    args = Namespace(
        model=tmp_path / "judge", screened=tmp_path / "screened", seeds=tmp_path / "seeds.parquet", out=tmp_path / "judged",
        metrics=tmp_path / "m.json",
    )  # fmt: skip
    run = run_of(laptop, tmp_path, "judge", "judge", endpoint.url, judge={"n_calibration": 4})
    judge.main(args, run)
    assert set(endpoint.keys) == {"Bearer key-of-the-judge"}
    asked = [[m["content"] for m in body["messages"]] for body in endpoint.bodies]
    assert judge_turns("What is 1 + 1?", run.params.judge.style) in asked
    judged = read_rows(tmp_path / "judged", JUDGED)
    assert [(row["verdict"], row["finish_reason"]) for row in judged] == [("solvable", "stop")] * 3 + [
        ("no_verdict", "refusal")
    ]
    paid = len(endpoint.bodies) - 1  # a refusal costs nothing
    assert paid == 3 + 2 * 4
    assert run.logged["api_usd"] == pytest.approx(paid * (10 * 3.0 + 4 * 5.0) / 1e6)
    again = run_of(laptop, tmp_path, "judge", "judge", endpoint.url, judge={"n_calibration": 4})
    judge.main(args, again)
    assert again.logged["api_requests_paid"] == 0
    assert "key-of" not in (tmp_path / ".work" / "api" / "judge.jsonl").read_text()


def test_the_solvers_samples_are_requests_of_their_own(laptop: Params, endpoint: Endpoint, tmp_path: Path):
    endpoint.answer = lambda body: completion(f"\\boxed{{{body['seed'] % 1000}}}")
    write_rows(tmp_path / "q.parquet", questions(3), FILTERED)

    def responses(n_samples: int) -> list[tuple[str, int, str]]:
        run = run_of(laptop, tmp_path, "respond", "solver", endpoint.url, respond={"n_samples": n_samples})
        out = tmp_path / f"out-{n_samples}"
        respond.main(
            Namespace(
                model=tmp_path / "solver", questions=tmp_path / "q.parquet", out=out, metrics=tmp_path / "m.json"
            ),
            run,
        )
        return [(row["question_id"], row["sample"], row["response"]) for row in read_rows(out, RESPONSE)]

    two = responses(2)
    assert len(set(two)) == len({text for _, _, text in two}) == 6
    assert {body["messages"][0]["content"] for body in endpoint.bodies} == {
        solve_prompt(f"Q{i}?", laptop.respond.form) for i in range(3)
    }
    three = responses(3)
    assert [row for row in three if row[1] < 2] == two  # sample k is the same however many there are
    assert len(endpoint.bodies) == 9  # and is not paid again


def test_labels_come_from_a_solver_behind_an_endpoint(laptop: Params, endpoint: Endpoint, tmp_path: Path):
    problems = seeds(4)
    right = {row["question"]: row["answer"] for row in problems}

    def answer(body: dict[str, Any]) -> Any:
        asked = next(a for q, a in right.items() if q in body["messages"][0]["content"])
        return completion(f"\\boxed{{{asked if body['seed'] % 2 else -1}}}")

    endpoint.answer = answer
    write_rows(tmp_path / "seeds.parquet", problems, PROBLEM)
    run = run_of(
        laptop, tmp_path, "difficulty_labels", "solver", endpoint.url, solver={"method": "none"},
        difficulty_labels={"n_samples": 4, "n_seeds": 4},
    )  # fmt: skip
    difficulty_labels.main(
        Namespace(model=tmp_path / "solver", seeds=tmp_path / "seeds.parquet", out=tmp_path / "out", metrics=tmp_path / "m.json"),
        run,
    )  # fmt: skip
    rows = read_rows(tmp_path / "out", ATTEMPT)
    n_right = sum(body["seed"] % 2 for body in endpoint.bodies)
    assert len(rows) == len(endpoint.bodies) == 16
    assert sum(row["outcome"] == RIGHT for row in rows) == n_right
    assert json.loads((tmp_path / "m.json").read_text())["right_frac"] == pytest.approx(n_right / 16, abs=1e-4)


def test_a_refused_key_ends_the_stage_and_names_the_endpoint(laptop: Params, endpoint: Endpoint, tmp_path: Path):
    endpoint.answer = lambda body: error(401, "invalid api key", "invalid_api_key")
    write_rows(tmp_path / "q.parquet", questions(1), FILTERED)
    run = run_of(laptop, tmp_path, "respond", "solver", endpoint.url)
    args = Namespace(
        model=tmp_path / "solver", questions=tmp_path / "q.parquet", out=tmp_path / "o", metrics=tmp_path / "m"
    )
    with pytest.raises(UserError, match=r"ROLE_KEY"):
        respond.main(args, run)
