"""A finished run's files, small enough to calculate every number of its report by hand."""

import argparse
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from scalequest.io import read_json, write_json
from scalequest.params import Params
from scalequest.records import (
    ATTEMPT,
    INSTRUCTION,
    JUDGED,
    LEDGER,
    PREFERENCE,
    PROBLEM,
    QUESTION,
    RESPONSE,
    REWARD,
    SAMPLE,
    SCORE,
    write_rows,
)
from scalequest.report.provenance import SETTINGS
from scalequest.runtime.stage import Declared, StageRun
from stages import report

HOSTILE = "What is 1 | 2?\n```\n<script>alert('x')</script> & <b>bold</b>"


def score(
    n: int, flexible: float, flexible_se: float, strict: float, strict_se: float, unparsed: float
) -> dict[str, float]:
    return {
        "n": n, "flexible": flexible, "flexible_stderr": flexible_se, "strict": strict, "strict_stderr": strict_se,
        "unparsed": unparsed, "unparsed_stderr": 0.01, "cut": 0.05, "cut_stderr": 0.02, "timeouts": 0, "too_long": 0,
    }  # fmt: skip


# sqrt(p(1-p)/(n-1)): p .2, n 101: .04; p .5, n 101: .05; p .1, n 101: .03; p .16, n 85: .04.
SCORES: dict[str, dict[str, Any]] = {
    "student": {
        "embedded_sums": score(101, 0.5, 0.05, 0.2, 0.04, 0.02),
        "embedded_stories": score(101, 0.1, 0.03, 0.0, 0.0, 0.06),
        "warnings": {"score_zero": 0, "many_unparsed": 1},
    },
    "base": {
        "embedded_sums": score(101, 0.2, 0.04, 0.0, 0.0, 0.3),
        "embedded_stories": score(85, 0.16, 0.04, 0.0, 0.0, 0.3),
        "warnings": {"score_zero": 0, "many_unparsed": 0},
    },
    "alpha": {"embedded_sums": score(101, 0.5, 0.05, 0.2, 0.04, 0.02)},
    "solver": {
        "embedded_sums": score(101, 0.5, 0.05, 0.2, 0.04, 0.02),
        "embedded_stories": score(101, 0.2, 0.04, 0.2, 0.04, 0.02),
    },
}
TRAINED = {"examples": 90, "dropped_too_long": 3, "steps": 24, "first_loss": 2.5, "last_loss": 1.25, "mean_loss": 1.5}
PAIRS = {"questions": 40, "usable": 30, "pairs": 22, "kept_frac": 0.733333, "rejected": {"identical": 5, "cut": 3}}
HELD_OUT_REWARD = {
    "pairs": 20,
    "accuracy": 0.85,
    "accuracy_standard_error": 0.09,
}
BY_AIM = {
    "pairs": 20, "chosen": {"mean": 0.6, "standard_error": 0.1}, "rejected": {"mean": 0.75, "standard_error": 0.09},
    "difference": -0.15, "difference_standard_error": 0.08, "p_value": 0.25, "better": False,
}  # fmt: skip
METRICS: dict[str, dict[str, Any]] = {
    "seeds": {"problems": 270},
    "benchmarks": {"embedded_sums": 101},
    "solver": {"examples": 0},
    "difficulty_labels": {"problems": 64, "warnings": {"one_fail_rate": 0}},
    "difficulty_model": TRAINED
    | {"held_out": {"problems": 12, "spearman": 0.345678, "spearman_standard_error": 0.343, "mse": 0.08, "mse_of_the_mean": 0.1}}
    | {"warnings": {"no_correlation": 0}},
    "difficulty": {"questions": 7},
    "screen": {"questions": 10, "kept": 7},
    "judge": {"questions": 7, "warnings": {"one_verdict": 1, "no_verdicts": 0}},
    "filter": {"generated": 10, "kept": 4},
    "respond": {"questions": 4, "responses": 16, "cut_at_max_tokens": 2, "mean_tokens": 50.0, "mean_distinct": 3.25},
    "reward_model": TRAINED | {"held_out": HELD_OUT_REWARD, "warnings": {"coin_reward": 0}},
    "reward": {"responses": 16},
    "reward_select": {
        "questions": 4, "kept": 3, "dropped": {"no_answer": 1, "low_reward": 0},
        "mean_reward": {"kept": 1.5, "all": 0.25}, "mean_agreement": 0.75, "mean_candidates": 3.0,
        "checkable": {"n": 28, "right": 4, "right_frac": 0.1429}, "arithmetic": {"steps": 9, "wrong": 3, "wrong_frac": None},
    },
    "instruct_tune/student": TRAINED | {"examples": 2, "dropped_too_long": 1, "steps": 2},
    "qft/sums": TRAINED,
    "qft/stories": TRAINED,
    "qpo_questions/sums": {"questions": 40, "warnings": {"one_question": 0, "no_end": 0}},
    "qpo_questions/stories": {"questions": 40, "warnings": {"one_question": 0, "no_end": 0}},
    "preferences/sums": PAIRS | {"direction": {"solvability": 16, "difficulty": 14}},
    "preferences/stories": PAIRS | {"rejected": {"over_long": 8}, "direction": {"solvability": 10, "difficulty": 20}},
    "preference_check/solvability": {
        "measure": "solvability", "quality": {"difference": 0.123456, "by_direction": {"solvability": BY_AIM}},
        "warnings": {"rewrites_no_better": 0},
    },
    "qpo/sums": TRAINED | {"reloaded": {"pairs": 20, "pairs_from": "held out", "margin_trained": 0.4, "margin": 0.3, "accuracy_trained": 0.7, "accuracy": 0.6}},
    "qpo/stories": TRAINED
    | {"reloaded": {"pairs": 8, "pairs_from": "held out", "margin_trained": 0.408, "margin": 0.052, "accuracy_trained": 0.9, "accuracy": 0.75}},
    "generate/sums": {"questions": 6, "warnings": {"one_question": 0, "no_end": 0}},
    "generate/stories": {"questions": 4, "warnings": {"one_question": 0, "no_end": 1}},
    "preference_check/difficulty": {
        "measure": "difficulty", "quality": {"pairs": 40, "chosen_higher": {"frac": 0.7}}, "warnings": {"rewrites_no_better": 0},
    },
    "instruct_tune/student_gone": TRAINED | {"warnings": {"no_end": 1}},
    "generate/left_the_mix": {"questions": 99, "warnings": {"one_question": 1}},
}  # fmt: skip
# id, outcome, matched, evidence: 6 of sums, 4 of stories, 4 kept.
FATES = [
    ("sums/0/0", "kept", "", ""),
    ("sums/0/1", "language", "", "U+4F60"),
    ("sums/0/2", "kept", "", ""),
    ("sums/0/3", "contaminated", "embedded_sums/7", HOSTILE),
    ("sums/0/4", "unsolvable", "", ""),
    ("sums/0/5", "too_easy", "", ""),
    ("stories/0/0", "kept", "", ""),
    ("stories/0/1", "near_duplicate", "stories/0/0", "jaccard 0.900"),
    ("stories/0/2", "no_verdict", "", ""),
    ("stories/0/3", "kept", "", ""),
]
LEDGER_ROWS = [
    {"id": i, "generator": i.split("/")[0], "question": f"{HOSTILE} ({i})", "outcome": outcome, "matched": matched,
     "evidence": evidence, "verdict": "solvable", "difficulty": 0.25, "min_difficulty": 0.5}
    for i, outcome, matched, evidence in FATES
]  # fmt: skip
DATA = [
    {"id": i, "generator": i.split("/")[0], "question": f"{HOSTILE} ({i})", "response": "So it is $\\boxed{3|4}$ ````",
     "final_answer": "3|4", "reward": 1.5, "agreement": 0.75, "n_candidates": 3}
    for i in ("sums/0/0", "stories/0/0", "stories/0/3")
]  # fmt: skip


def items(model: str) -> list[dict[str, Any]]:
    """On sums the base gets items 0-19 right, the student 15-64: 45 gained, 15 lost. On stories 4 lost. Strict: none."""
    right = {
        "base": {"embedded_sums": range(20), "embedded_stories": range(4)},
        "student": {"embedded_sums": range(15, 65)},
    }[model]
    return [
        {"task": task, "split": "test", "shots": 0, "id": f"{task}/{n}", "question": "q", "answer": "1", "completion": "1",
         "finish_reason": "stop", "strict": 0.0, "flexible": float(n in right.get(task, ())), "unparsed": 0.0, "timeout": 0.0}
        for task in ("embedded_sums", "embedded_stories")
        for n in range(101)
    ]  # fmt: skip


SEEDS = [
    {"id": f"chain_sum/{n}", "source": "chain_sum", "stratum": "", "question": "What is 1 + 1?", "solution": "2", "answer": "2"}
    for n in range(2)
]  # fmt: skip
# The first seed is always missed, the second every other time.
ATTEMPTS = [
    {"problem_id": f"chain_sum/{n}", "sample": s, "response": "2", "finish_reason": "stop", "final_answer": "2",
     "outcome": "right" if n and s else "wrong"}
    for n in range(2)
    for s in range(2)
]  # fmt: skip


def question(name: str) -> dict[str, Any]:
    """A question after QFT."""
    return {
        "id": name, "generator": name.split("/")[0], "question": f"{HOSTILE} three more words", "completion": "", "n_tokens": 5,
        "finish_reason": "stop", "seed": 1,
    }  # fmt: skip


def rewrites(name: str) -> list[dict[str, Any]]:
    """One pair, and one rewrite that is its original."""
    return [
        {"id": f"{name}/0/{n}", "generator": name, "direction": "difficulty", "question": "abcd", "rewrite": rewrite,
         "completion": f"Here it is: {rewrite}", "finish_reason": "stop", "verdict": verdict}
        for n, (rewrite, verdict) in enumerate([("abcdef", "kept"), ("abcd", "identical")])
    ]  # fmt: skip


class Folder:
    """A finished run in ``tmp_path``."""

    def __init__(self, root: Path, params: Params) -> None:
        self.root, self.params = root, params.model_copy(update={"mix": ["sums", "stories"]})
        self.args = argparse.Namespace(
            scores=root / "eval/scores", metrics=root / "reports/metrics", ledger=root / "ledger.parquet",
            data=root / "instruct.parquet", samples=root / "samples", markdown=root / "reports/report.md",
            page=root / "reports/index.html", scores_plot=root / "scores.csv", funnel_plot=root / "funnel.csv",
            seeds=root / "seeds.parquet", attempts=root / "attempts", qpo_questions=root / "qpo_questions",
            preferences=root / "preferences", preference_check=root / "preference_check", judged=root / "judged", responses=root / "responses", rewards=root / "rewards",
            curves=root / "curves", summary=root / "summary.json", distributions=root / "distributions",
        )  # fmt: skip
        for name, metrics in METRICS.items():
            write_json(self.args.metrics / f"{name}.json", metrics)
        for model, scores in SCORES.items():
            write_json(self.args.scores / f"{model}.json", scores)
        for model in ("base", "student"):
            write_rows(self.args.samples / f"{model}.parquet", items(model), SAMPLE)
        write_rows(self.args.ledger, LEDGER_ROWS, LEDGER)
        write_rows(self.args.data, DATA, INSTRUCTION)
        self.write_upstream(LEDGER_ROWS, DATA)

    def write_upstream(self, ledger: list[dict[str, Any]], data: list[dict[str, Any]]) -> None:
        """What the report reads beside the ledger and the training rows: three answers to each of these, the second chosen."""
        write_rows(self.args.seeds, SEEDS, PROBLEM)
        write_rows(self.args.attempts, ATTEMPTS, ATTEMPT)
        for name in ("sums", "stories"):
            write_rows(self.args.qpo_questions / name, [question(f"{name}/0/{n}") for n in range(3)], QUESTION)
            write_rows(self.args.preferences / f"{name}.parquet", rewrites(name), PREFERENCE)
        sides = [("sums/0/0/chosen", "unsolvable", 0.75), ("sums/0/0/rejected", "solvable", 0.5)]
        write_rows(
            self.args.preference_check / "solvability.parquet",
            [{"id": i, "verdict": v, "completion": f"{HOSTILE} {v}", "finish_reason": "stop"} for i, v, _ in sides],
            JUDGED,
        )
        write_rows(
            self.args.preference_check / "difficulty.parquet",
            [{"id": i, "score": score} for i, _, score in sides],
            SCORE,
        )
        asked = [row for row in ledger if row["outcome"] not in ("language", "contaminated", "near_duplicate")]
        verdicts = [
            {"id": row["id"], "verdict": row["verdict"], "completion": f"{HOSTILE} Yes", "finish_reason": "stop"}
            for row in asked
        ]
        write_rows(self.args.judged, verdicts, JUDGED)
        answers = [
            {
                "id": f"{row['id']}#{n}",
                "question_id": row["id"],
                "sample": n,
                "finish_reason": "length" if n == 2 else "stop",
                "response": row["response"] if n == 1 else f"Another answer, {n}",
                "n_tokens": 9,
            }
            for row in data
            for n in range(3)
        ]
        write_rows(self.args.responses, answers, RESPONSE)
        rewards = [
            {"id": a["id"], "question_id": a["question_id"], "sample": a["sample"], "reward": 0.5 * a["sample"]}
            for a in answers
        ]
        write_rows(self.args.rewards, rewards, REWARD)
        (self.args.curves / "qft").mkdir(parents=True, exist_ok=True)
        curve = "step,loss,grad_norm,learning_rate\n1,2.5,nan,0\n2,2.0,1.5,0.1\n3,1.25,1.0,0.1\n"
        (self.args.curves / "qft/sums.csv").write_text(curve)
        (self.args.curves / "qft/left_the_mix.csv").write_text(curve)

    def change(self, metrics: str, **values: Any) -> None:
        path = self.args.metrics / f"{metrics}.json"
        write_json(path, read_json(path) | values)

    def run(self) -> tuple[str, str]:
        """Markdown and page."""
        report.main(self.args, StageRun(Declared(self.params, SETTINGS)))
        return self.args.markdown.read_text(encoding="utf-8"), self.args.page.read_text(encoding="utf-8")


class Page(HTMLParser):
    """What a browser would see: tags with their attributes, and whether every tag is closed by its own end."""

    VOID = frozenset({"meta", "input", "link", "br"})

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def section(text: str, title: str) -> str:
    return text.split(f"\n## {title}\n")[1].split("\n## ")[0]


def row(text: str, *start: str) -> list[str]:
    """Cells of the one table row that starts so."""
    found = [line for line in text.splitlines() if line.startswith("| " + " | ".join(start) + " |")]
    assert len(found) == 1, f"{start}: {found}"
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", found[0])[1:-1]]
