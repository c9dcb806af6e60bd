"""avg@k: several sampled answers per item, each by a seed of its own."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalequest.evaluation import Draws, Exam, lm_of, resolve_tasks, sample_rows, scores_in_words, split_of, summarize
from scalequest.io import read_jsonl, write_jsonl
from scalequest.records import SAMPLE, by_item, write_rows
from scalequest.report.run import read_items
from scalequest.sampling.completion import Completion
from scalequest.seeding import row_seed
from scalequest.statistics import proportion_error, shares_error
from tests.fakes import ROOT
from tests.test_evaluation import answered

TASKS = ROOT / "eval" / "tasks"


def answers(*shares: tuple[float, ...], **values: Any) -> list[dict[str, Any]]:
    """Rows of records.SAMPLE: whether each answer to each item is right, in both forms."""
    rows = []
    for item, right in enumerate(shares):
        for k, value in enumerate(right):
            rows += [row | {"id": f"aime/{item}#{k}"} for row in answered("aime", (value, value, 0.0), **values)]
    return rows


def test_the_score_is_the_mean_over_answers_with_the_error_of_items_and_answers():
    scores = summarize(answers((1, 1, 1, 0), (0, 0, 0, 0)))["aime"]
    # Shares 3/4 and 0; with two items at 1 and two at 0 added, mean 2.75/6, mean square (0.5625 + 2)/6:
    # sqrt((0.427083 - 0.210069) / 6) = 0.190181. The four runs score 1/2, 1/2, 1/2 and 0: deviation 0.25.
    assert {key: scores[key] for key in ("n", "samples", "flexible", "flexible_stderr", "flexible_sd")} == {
        "n": 2, "samples": 4, "flexible": 0.375, "flexible_stderr": 0.190181, "flexible_sd": 0.25,
    }  # fmt: skip
    assert "aime: mean of 4 answers per item; deviation of the single runs: flexible 25.0, strict 25.0 points" in scores_in_words({"aime": scores})  # fmt: skip


def test_answers_to_one_item_are_no_items_of_their_own():
    # 30 items, half always right, half never: 16 equal answers each prove no more than one.
    one, many = (summarize(answers(*[(1,) * k] * 15, *[(0,) * k] * 15))["aime"] for k in (1, 16))
    assert one["flexible_stderr"] == many["flexible_stderr"] == pytest.approx(proportion_error(15, 30), abs=1e-6)
    assert many["flexible_sd"] == 0.0
    assert "samples" not in one
    assert "flexible_sd" not in one


@pytest.mark.parametrize("right", [0, 1, 7, 10])
def test_the_error_of_shares_is_that_of_a_proportion_where_each_is_0_or_1(right: int):
    assert shares_error([1.0] * right + [0.0] * (10 - right)) == pytest.approx(proportion_error(right, 10))
    assert shares_error([]) == proportion_error(0, 0) == 0.5


def test_an_item_is_asked_as_often_as_it_is_answered(tmp_path: Path):
    (tmp_path / "target").mkdir()
    write_jsonl(tmp_path / "b" / "aime.jsonl", [{"id": f"aime/{n}", "question": "Q", "answer": "1"} for n in range(3)])
    resolve_tasks(TASKS, tmp_path / "b", tmp_path / "target", ["aime"], limit=2, samples=3)
    ids = [row["id"] for row in read_jsonl(tmp_path / "target" / "aime.jsonl")]
    assert [name.rpartition("#")[2] for name in ids] == ["0", "1", "2"] * 2
    assert len({name.partition("#")[0] for name in ids}) == 2


def test_all_answers_to_an_item_are_of_one_split():
    exam = Exam(TASKS, TASKS, ["aime"], max_tokens=8, dev_frac=0.5, draws=Draws(2, 0.6))
    scored = {"strict": 0.0, "flexible": 1.0, "unparsed": 0.0, "timeout": 0.0}
    ids = [f"aime/{n}#{k}" for n in range(20) for k in range(2)]
    raw = [{"doc_id": at, "doc": {"id": name, "question": "Q", "answer": "1"}, "resps": [["1"]]} | scored for at, name in enumerate(ids)]  # fmt: skip
    rows = list(sample_rows({"samples": {"aime": raw}}, exam, {("aime", at): "stop" for at in range(40)}))
    assert [row["split"] for row in rows] == [split_of(name.partition("#")[0], 0.5) for name in ids]
    assert {row["split"] for row in rows} == {"dev", "test"}


class SeededEngine:
    """Answers with the seed that it was given."""

    chat = SimpleNamespace(conversations=list)

    def complete_rows(self, sampling: Any, stops: tuple[str, ...]) -> Any:
        assert (sampling.temperature, sampling.top_p, sampling.max_tokens, stops) == (0.6, 0.95, 8, ("\ndef ",))
        return lambda prompts, seeds: [Completion(str(seed), "stop", 1) for seed in seeds]


def asked(*ids: str, draws: Draws) -> list[str]:
    requests = [
        SimpleNamespace(task_name="t", doc_id=at, args=("q", {"until": ["\ndef "]}), doc={"id": name}) for at, name in enumerate(ids)
    ]  # fmt: skip
    found: list[str] = lm_of(SeededEngine(), 8, draws=draws).generate_until(requests)  # type: ignore[arg-type]
    return found


def test_an_answer_depends_on_its_item_and_number_alone():
    draws = Draws(2, 0.6, 0.95, seed=17)
    found = asked("a#0", "a#1", "b#0", "b#1", draws=draws)
    assert len(set(found)) == 4
    assert asked("b#1", "a#0", draws=draws) == [found[3], found[0]]  # whatever else is asked
    assert asked("a", "b", draws=Draws(1, 0.6, 0.95, seed=17)) == found[::2]  # the first of several
    assert asked("a#0", draws=Draws(2, 0.6, 0.95, seed=18)) != found[:1]
    assert found[0] == str(row_seed(17, "evaluate", "a#0"))


def test_pairs_of_models_are_compared_by_item(tmp_path: Path):
    write_rows(tmp_path / "base.parquet", [*answers((1, 0, 0, 0), (1, 1, 1, 1)), *answers((0, 0), shots=3)], SAMPLE)
    items = read_items(tmp_path, ["base"])
    assert {key: row["flexible"] for key, row in items["base"].items()} == {("aime", "aime/0"): 0.25, ("aime", "aime/1"): 1.0}  # fmt: skip
    assert items["base_fewshot"]["aime", "aime/0"]["flexible"] == 0.0
    single = answered("sums", (1.0, 1.0, 0.0), (0.0, 1.0, 0.0))
    assert by_item(single) == single
