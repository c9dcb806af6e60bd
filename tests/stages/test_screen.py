import json
import os
import random
import re
import subprocess
import sys
import time
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from scalequest.errors import UserError
from scalequest.io import write_jsonl
from scalequest.outcomes import KEPT, SCREEN_OUTCOMES
from scalequest.params import Params, Screen
from scalequest.problems.shingles import jaccard, shingles
from scalequest.records import PROBLEM, QUESTION, SCREENED, read_rows, write_rows
from scalequest.runtime.stage import StageRun
from stages import screen as stage_module
from stages.screen import main, pieces, screen
from tests.fakes import ROOT
from tests.problems.test_contamination import ASKED, DIE, PHRASED

EXAM = "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May."  # 19 words


def question(number: int, text: str, finish_reason: str = "stop", generator: str = "sums") -> dict[str, Any]:
    return {
        "id": f"{generator}/0/{number}", "generator": generator, "question": text, "completion": text,
        "finish_reason": finish_reason, "n_tokens": 3, "seed": 1,
    }  # fmt: skip


def settings(**changes: Any) -> Screen:
    return Screen(
        **{"language": "any", "min_words": 1, "near_duplicate_jaccard": 1.0, "decontaminate_ngram": 0} | changes
    )


def verdicts(*texts: str, benchmark: tuple[str, ...] = (), **changes: Any) -> list[str]:
    rows = [question(i, text) for i, text in enumerate(texts)]
    items = [{"id": f"exam/{i}", "question": text, "answer": "1"} for i, text in enumerate(benchmark)]
    return [row["verdict"] for row in screen(rows, items, settings(**changes))]


# ------------------------------------------------------------------------------------------------------------ language


CHINESE = "小明有三个苹果，他又买了两个苹果，请问小明现在一共有多少个苹果？"


def test_a_question_in_another_script_goes_for_its_language_and_not_for_its_length():
    # Chinese has no spaces: counted as words it would be "too short", and the language filter's rate would be wrong.
    assert verdicts(CHINESE, "三加四是多少？", language="lingua", min_words=4) == ["language", "language"]


# ---------------------------------------------------------------------------------------------------------- duplicates

STORY = "Tom has 3 red apples and 4 green pears in a big basket. How many pieces of fruit does Tom have in all?"
# The same in other words.
OTHER_WORDS = "Tom has 3 red apples and 4 green pears in a large basket. How many pieces of fruit has he in total?"


def test_shingles_are_runs_of_three_words_and_signs():
    assert shingles("What is 2 + 3?") == {"what is 2", "is 2 +", "2 + 3", "+ 3 ?"}
    assert shingles("Two words") == {"two words"}
    assert shingles("") == {""}


def test_jaccard_is_the_shared_share():
    # {b, c} of {a, b, c, d}
    assert jaccard({"a", "b", "c"}, {"b", "c", "d"}) == 0.5


def test_the_first_of_exact_duplicates_is_kept_and_named():
    rows = [question(0, "What is 1 + 1?"), question(1, "what is 1+1"), question(2, "What is 1 + 2?")]
    screened = screen(rows, [], settings())
    assert [(r["verdict"], r["matched"]) for r in screened] == [
        ("kept", ""),
        ("exact_duplicate", "sums/0/0"),
        ("kept", ""),
    ]


def test_the_first_of_near_duplicates_is_kept_and_named_with_the_similarity():
    # 25 words and signs give 23 shingles; "Tom" -> "Ann" at the start changes one of them: 22 shared of 24.
    near = STORY.replace("Tom has", "Ann has", 1)
    shared = jaccard(shingles(STORY), shingles(near))
    assert shared == 22 / 24
    screened = screen([question(0, STORY), question(1, near)], [], settings(near_duplicate_jaccard=0.85))
    assert [(r["verdict"], r["matched"], r["evidence"]) for r in screened] == [
        ("kept", "", ""),
        ("near_duplicate", "sums/0/0", "jaccard 0.917"),
    ]


def test_the_threshold_decides():
    near = STORY.replace("Tom has", "Ann has", 1)  # Jaccard 0.917, see above
    assert verdicts(STORY, near, near_duplicate_jaccard=0.93) == ["kept", "kept"]
    assert verdicts(STORY, near, near_duplicate_jaccard=0.91) == ["kept", "near_duplicate"]
    assert verdicts(STORY, near, near_duplicate_jaccard=1.0) == ["kept", "kept"]


def test_another_number_or_sign_makes_a_short_question_another_one():
    texts = ["What is 2 + 3?", "What is 2 - 3?", "What is 2 + 4?", "What is 12 + 3?"]
    assert verdicts(*texts, near_duplicate_jaccard=0.85) == ["kept"] * 4


def test_a_duplicate_does_not_stand_for_others():
    # b is near a and dropped; c is near b only, so nothing that is kept is near c.
    threshold = 0.85
    a = " ".join(f"w{i}" for i in range(40))
    b = a.replace("w0 w1", "x0 x1")
    c = b.replace("w38 w39", "y38 y39")
    similarity = [jaccard(shingles(p), shingles(q)) for p, q in ((a, b), (b, c), (a, c))]
    # 38 shingles each; two changed ones make 36 shared of 40, four make 34 of 42.
    assert [round(s, 3) for s in similarity] == [0.9, 0.9, 0.81]
    assert verdicts(a, b, c, near_duplicate_jaccard=threshold) == ["kept", "near_duplicate", "kept"]


def test_near_duplicates_are_found_among_many():
    base = [f"question {i} " + " ".join(f"word{(i * 31 + j * 7) % 997}" for j in range(30)) for i in range(300)]
    rows = [question(i, text) for i, text in enumerate([*base, *(f"{text} again" for text in base)])]
    screened = screen(rows, [], settings(near_duplicate_jaccard=0.85))
    # 32 words give 30 shingles; one word more at the end adds one: 30 of 31.
    found = [(r["verdict"], r["matched"], r["evidence"]) for r in screened]
    assert found[:300] == [("kept", "", "")] * 300
    assert found[300:] == [("near_duplicate", f"sums/0/{i}", f"jaccard {30 / 31:.3f}") for i in range(300)]


def test_an_exact_duplicate_of_a_near_duplicate_names_what_is_kept():
    near = STORY.replace("Tom has", "Ann has", 1)
    screened = screen(
        [question(i, text) for i, text in enumerate((STORY, near, near.upper()))],
        [],
        settings(near_duplicate_jaccard=0.85),
    )
    assert [(r["verdict"], r["matched"], r["evidence"]) for r in screened[1:]] == [
        ("near_duplicate", "sums/0/0", "jaccard 0.917"),
        ("exact_duplicate", "sums/0/0", "equals sums/0/1, jaccard 0.917"),
    ]


def test_a_semantic_duplicate_names_what_is_kept_and_the_cosine():
    near = OTHER_WORDS.replace("Tom has", "Ann has", 1)
    texts = (STORY, OTHER_WORDS, near, near.upper(), STORY.replace("3", "9"))
    rows = [question(i, text) for i, text in enumerate(texts)]
    params = settings(near_duplicate_jaccard=0.8, semantic_duplicate_cosine=0.8)
    screened = screen(rows, [], params)
    found = [(r["verdict"], r["matched"], re.sub(r"0\.\d{3}", "0.x", r["evidence"])) for r in screened]
    assert found == [
        ("kept", "", ""),
        ("semantic_duplicate", "sums/0/0", "cosine 0.x"),
        ("near_duplicate", "sums/0/0", "jaccard 0.x with sums/0/1, cosine 0.x"),
        ("exact_duplicate", "sums/0/0", "equals sums/0/2, jaccard 0.x with sums/0/1, cosine 0.x"),
        ("kept", "", ""),
    ]
    assert by_id(screen(rows[::-1], [], params)) == by_id(screened)
    assert verdicts(STORY, OTHER_WORDS, near_duplicate_jaccard=0.8) == ["kept", "kept"]


def by_id(rows: list[dict[str, Any]]) -> list[tuple[str, ...]]:
    return sorted((r["id"], r["verdict"], r["matched"], r["evidence"]) for r in rows)


def test_groups_are_the_same_in_any_order_of_rows():
    # Ten crowds with changed numbers, words and case. Row 10 comes after row 9, so ids are compared as numbers.
    rng = random.Random(5)
    texts = [
        f"{STORY} and {i % 10} more {'very ' * rng.randrange(4)}often {rng.choice(('a', 'A'))} {rng.randrange(3)}"
        for i in range(200)
    ]
    rows = [question(i, text) for i, text in enumerate(texts)]
    shuffled = rng.sample(rows, len(rows))
    params = settings(near_duplicate_jaccard=0.8)
    first, second = screen(rows, [], params), screen(shuffled, [], params)
    assert by_id(first) == by_id(second)
    assert {r["verdict"] for r in first} == {"kept", "exact_duplicate", "near_duplicate"}
    # Each group names a question that is kept, and it is the first of its group.
    kept = {r["id"] for r in first if r["verdict"] == "kept"}
    number = {r["id"]: at for at, r in enumerate(first)}
    assert all(r["matched"] in kept and number[r["matched"]] < number[r["id"]] for r in first if r["matched"])


def test_ids_of_other_forms_have_an_order_too():
    rows = [question(0, "What is 1 + 1?") | {"id": name} for name in ("b-10", "b-9", "own/2", "own/10")]
    expected = {"b-10": "kept", "b-9": "exact_duplicate", "own/2": "exact_duplicate", "own/10": "exact_duplicate"}
    for order in (rows, rows[::-1]):
        assert {r["id"]: r["verdict"] for r in screen(order, [], settings())} == expected


# --------------------------------------------------------------------------------------------------------- whole screen


BALLS = "How many ways are there to put 5 balls in 2 boxes?"


def test_every_row_gets_the_first_verdict_that_applies():
    rows = [
        question(0, STORY), question(1, "Tom has", "length"), question(2, ""), question(3, "Hm?"),
        question(4, "What is π times 2 exactly?"), question(5, EXAM), question(6, STORY.upper()),
        question(7, STORY.replace("Tom has", "Ann has", 1)), question(8, "", "length"), question(9, EXAM, "length"),
        question(10, "What is\x00 2 + 3 exactly?"), question(11, BALLS.replace("5", "9")),
        question(12, OTHER_WORDS),
    ]  # fmt: skip
    screened = screen(
        rows, [{"id": "exam/0", "question": EXAM}, {"id": "exam/1", "question": BALLS}],
        settings(language="ascii", min_words=4, near_duplicate_jaccard=0.85, decontaminate_ngram=13, template_match="drop",
                 semantic_duplicate_cosine=0.8),
    )  # fmt: skip
    assert [r["verdict"] for r in screened] == [
        "kept", "cut", "empty", "too_short", "language", "contaminated", "exact_duplicate", "near_duplicate", "cut", "cut",
        "unreadable", "template_match", "semantic_duplicate",
    ]  # fmt: skip
    assert [r["id"] for r in screened] == [r["id"] for r in rows]
    assert {r["verdict"] for r in screened} == {KEPT, *SCREEN_OUTCOMES}
    assert [screened[i]["evidence"] for i in (1, 3, 4)] == ["length", "1 words", "U+03C0"]


def test_a_template_match_is_reported_and_kept_unless_it_is_dropped():
    rows = [question(0, BALLS.replace("5", "9")), question(1, BALLS.replace("5", "9").upper())]
    found = {}
    for rule in ("report", "drop", "off"):
        params = settings(decontaminate_ngram=13, template_match=rule)
        screened = screen(rows, [{"id": "exam/1", "question": BALLS}], params)
        found[rule] = [(r["verdict"], r["matched"], r["evidence"]) for r in screened]
    # "How many ways are there to put 0 balls in 0 boxes ?" gives 6 runs of 8 words and signs.
    said = ("exam/1", "template match: 6 of 6 runs of 8 words")
    assert found["report"] == [("kept", *said), ("exact_duplicate", "sums/0/0", "")]
    assert found["drop"] == [("template_match", *said)] * 2
    assert found["off"] == [("kept", "", ""), ("exact_duplicate", "sums/0/0", "")]


def test_overlap_and_diversity_are_measured_by_generator(stage, tmp_path: Path):
    # stories repeats one of sums exactly and one nearly, and one of its own.
    near = STORY.replace("Tom has", "Ann has", 1)
    own = "A truck carries 5 boxes of lamps to the station and comes back."
    stage(sums=["What is 1 + 1?", STORY, "Why is 7 odd?"], stories=["what is 1+1", near, own, own])
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert metrics["overlap"] == {
        "exact": {"sums": {"sums": 0, "stories": 0}, "stories": {"sums": 1, "stories": 1}},
        "near": {"sums": {"sums": 0, "stories": 0}, "stories": {"sums": 1, "stories": 0}},
        "semantic": {"sums": {"sums": 0, "stories": 0}, "stories": {"sums": 0, "stories": 0}},
    }
    # Three of each are compared; of stories the second `own` is left out or in, by distance.
    assert metrics["diversity"]["sums"]["n"] == metrics["diversity"]["stories"]["n"] == 3
    assert 1 < metrics["diversity"]["sums"]["vendi"] <= 3
    assert 1 < metrics["diversity"]["sums"]["vendi_of_meaning"] <= 3
    assert metrics["template_matches"] == {"kept": 0, "items": 0}


@pytest.mark.parametrize(
    ("screen", "looked_for"),
    [
        pytest.param({"template_match": "report", "paraphrase_cosine": 0.78}, (True, True), id="both"),
        pytest.param({"template_match": "off", "paraphrase_cosine": 0.78}, (False, True), id="paraphrases"),
        pytest.param({"template_match": "drop", "paraphrase_cosine": 1.0}, (True, False), id="templates"),
        # An older file has no template_match, and then it reads "report".
        pytest.param({"decontaminate_ngram": 0}, (False, False), id="nothing_is_compared"),
    ],
)
def test_what_was_not_looked_for_is_not_reported_as_0(stage, tmp_path: Path, screen, looked_for: tuple[bool, bool]):
    stage(sums=["What is 1 + 1?", STORY], screen=screen)
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert (metrics["template_matches"] is not None, metrics["paraphrases"] is not None) == looked_for


def test_an_empty_generator_has_no_diversity(stage, tmp_path: Path):
    stage(sums=["What is 1 + 1?"], stories=["Hm?"])
    metrics = json.loads((tmp_path / "m.json").read_text())
    none = {"n": 0, "vendi": 0.0, "vendi_of_meaning": 0.0}
    assert metrics["diversity"] == {"sums": none, "stories": none}


def test_generators_are_screened_together():
    rows = [question(0, STORY, generator="sums"), question(0, STORY, generator="stories")]
    assert [r["matched"] for r in screen(rows, [], settings())] == ["", "sums/0/0"]


@pytest.fixture
def generated(tmp_path: Path):
    """Write questions of these generators, give the folder."""

    def write(**by_generator: list[str]) -> Path:
        for name, texts in by_generator.items():
            rows = [question(i, text, generator=name) for i, text in enumerate(texts)]
            write_rows(tmp_path / "questions" / name, rows, QUESTION)
        return tmp_path / "questions"

    return write


def test_generators_come_in_the_mixs_order(generated):
    folder = generated(alpha=["A?"], beta=["B?"])
    assert [p.path.parent.name for p in pieces(folder, ["beta", "alpha"])] == ["beta", "alpha"]


def test_a_generator_that_left_the_mix_is_not_read(generated):
    folder = generated(sums=["A?"], stories=["B?"])
    assert [(p.path.parent.name, p.rows) for p in pieces(folder, ["stories"])] == [("stories", 1)]


def test_a_generator_without_questions_is_named(generated):
    folder = generated(sums=["A?"], stories=["B?"])
    with pytest.raises(UserError) as caught:
        pieces(folder, ["sums", "rhymes", "odes"])
    assert "no questions of ['odes', 'rhymes']" in str(caught.value)
    assert "dvc repro generate@odes generate@rhymes" in str(caught.value)


@pytest.fixture
def stage(tmp_path: Path, generated, laptop: Params):
    def run(
        mix: list[str] | None = None,
        benchmarks: Sequence[str] = ("exam",),
        runtime: dict[str, Any] | None = None,
        exam: str = EXAM,
        seeds: Sequence[str] = (),
        screen: dict[str, Any] | None = None,
        **by_generator: list[str],
    ) -> None:
        folder = generated(**by_generator)
        write_jsonl(tmp_path / "benchmarks" / "exam.jsonl", [{"id": "exam/0", "question": exam, "answer": "1"}])
        problems = [
            dict.fromkeys(PROBLEM.names, "") | {"id": f"s/{n}", "question": text} for n, text in enumerate(seeds)
        ]
        write_rows(tmp_path / "seeds.parquet", problems, PROBLEM)
        args = Namespace(
            questions=folder, benchmarks=tmp_path / "benchmarks", seeds=tmp_path / "seeds.parquet", out=tmp_path / "out",
            metrics=tmp_path / "m.json",
        )  # fmt: skip
        chosen = settings(
            **{"min_words": 3, "decontaminate_ngram": 13, "near_duplicate_jaccard": 0.85} | (screen or {})
        )
        params = {"mix": mix or list(by_generator), "screen": chosen, "benchmarks": dict.fromkeys(benchmarks)}
        params["runtime"] = laptop.runtime.model_copy(update=runtime or {})
        main(args, StageRun(laptop.model_copy(update=params)))

    return run


def test_the_stage_accounts_for_every_row(stage, tmp_path: Path):
    stage(sums=["What is 1 + 1?", "Hm?", "What is 1+1"], stories=[EXAM, STORY])
    rows = read_rows(tmp_path / "out", SCREENED)
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert len(rows) == metrics["questions"] == 5
    assert metrics["kept"] + sum(metrics["dropped"].values()) == 5
    assert metrics["kept_frac"] == 0.4
    assert {name: n for name, n in metrics["dropped"].items() if n} == {
        "too_short": 1, "exact_duplicate": 1, "contaminated": 1,
    }  # fmt: skip
    assert metrics["by_generator"] == {
        "sums": {"kept": 1, "too_short": 1, "exact_duplicate": 1},
        "stories": {"kept": 1, "contaminated": 1},
    }
    assert Counter(r["verdict"] for r in rows)["kept"] == 2


LONG_EXAM = f"{DIE['question']} {EXAM}"


def test_set_phrases_of_the_seeds_contaminate_nothing_and_are_counted(stage, tmp_path: Path):
    stage(sums=[ASKED, DIE["question"], STORY], exam=LONG_EXAM)
    assert [r["verdict"] for r in read_rows(tmp_path / "out", SCREENED)] == ["contaminated", "contaminated", "kept"]
    none = {"runs_of_items": 0, "runs_of_seeds": 0, "items": 0, "examples": {}}
    assert json.loads((tmp_path / "m.json").read_text())["set_phrases"] == none
    stage(sums=[ASKED, DIE["question"], STORY], exam=LONG_EXAM, seeds=PHRASED)
    assert [r["verdict"] for r in read_rows(tmp_path / "out", SCREENED)] == ["kept", "contaminated", "kept"]
    assert json.loads((tmp_path / "m.json").read_text())["set_phrases"] == {
        "runs_of_items": 0, "runs_of_seeds": 3, "items": 1,
        "examples": {"exam/0": "is m n where m and n are relatively prime positive integers find"},
    }  # fmt: skip


def test_nothing_left_is_an_error_that_says_why(stage, tmp_path: Path):
    with pytest.raises(UserError, match=r"screen dropped all 2 questions: \{'too_short': 2\}"):
        stage(sums=["Hm?", "So?"])
    assert not (tmp_path / "out").exists()


def test_one_generator_of_two_can_be_screened_alone(stage, tmp_path: Path):
    # `dvc exp run -S mix=[sums]` leaves the other generator's folder where it is.
    stage(["sums"], sums=["What is 1 + 1?", "What is 2 + 2?"], stories=[EXAM, STORY])
    assert {r["generator"] for r in read_rows(tmp_path / "out", SCREENED)} == {"sums"}
    metrics = json.loads((tmp_path / "m.json").read_text())
    assert (metrics["questions"], metrics["by_generator"]) == (2, {"sums": {"kept": 2}})


BAD = [
    ("not_utf8", b"Tom has \xff apples. How many?", "unreadable", "byte 0xff at 8"),
    ("nul", "Tom has\x00 3 apples. How many?", "unreadable", "U+0000 at 7"),
    ("half_a_character", "Tom has \ud83d 3 apples.", "unreadable", "U+D83D at 8"),
    ("spaces", " \t\n\u00a0", "empty", "only spaces"),
    ("nothing_printed", "\u200b\u200d\ufeff", "empty", "only characters that print nothing"),
    ("mixed_scripts", "Tom 有三个苹果，他又买了两个苹果，请问他现在一共有多少个苹果 how many?", "language", "chinese"),
    ("zero_width_inside", "T\u200bom has 3 app\u200bles and buys 2. How many does he have?", "kept", ""),
    ("a_megabyte", "Tom has 3 apples and buys 2 more. How many does he have? " * 18_000, "kept", ""),
    ("a_megabyte_of_one_sign", "?" * 1_000_000, "too_short", "0 words"),
    ("a_megabyte_of_one_word", "a" * 1_000_000, "too_short", "1 words"),
    ("no_text", None, "empty", ""),
]  # fmt: skip


def test_bad_input_gets_a_verdict(tmp_path: Path):
    rows = [question(i, text) for i, (_, text, _, _) in enumerate(BAD)]
    params = settings(
        language="lingua", min_words=3, near_duplicate_jaccard=0.85, decontaminate_ngram=13, paraphrase_cosine=0.9,
        semantic_duplicate_cosine=0.9,
    )  # fmt: skip
    screened = screen(rows, [{"id": "exam/0", "question": EXAM}], params)
    assert [(r["verdict"], r["evidence"].split(" 0.")[0].split(" 1.")[0]) for r in screened] == [bad[2:] for bad in BAD]
    # The ledger can be written and read, whatever it holds.
    write_rows(tmp_path / "out.parquet", screened, SCREENED)
    assert "\ufffd" in read_rows(tmp_path / "out.parquet", SCREENED)[0]["question"]


def test_a_file_with_text_that_is_not_utf8_is_screened(stage, tmp_path: Path):
    stage(sums=["Tom has Z apples. How many?", "What is 1 + 1?", STORY])
    part = next((tmp_path / "questions" / "sums").iterdir())
    data = pq.read_table(part)
    broken = pa.array([b"Tom has \xff apples. How many?", b"What is 1 + 1?", STORY.encode()], pa.binary()).view(
        pa.string()
    )
    pq.write_table(data.set_column(data.schema.names.index("question"), "question", broken), part)
    stage(["sums"])
    rows = read_rows(tmp_path / "out", SCREENED)
    assert [r["verdict"] for r in rows] == ["unreadable", "kept", "kept"]
    assert rows[0]["question"] == "Tom has \ufffd apples. How many?"


def test_a_missing_benchmark_is_an_error_before_any_work(stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(stage_module, "check_all", lambda *_: pytest.fail("work was done"))
    expected = r"no items of \['exam', 'quiz'\]\. Expected NAME.jsonl .* dvc repro benchmarks"
    with pytest.raises(UserError, match=expected):
        stage_module.read_benchmarks(tmp_path / "nothing", ["exam", "quiz"])
    with pytest.raises(UserError, match="no items of"):
        stage(sums=[STORY], benchmarks=["exam", "quiz"])
    assert not (tmp_path / "out").exists()


def test_processes_and_row_groups_change_no_byte(stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    rng = random.Random(9)
    texts = [f"{STORY} {'very ' * rng.randrange(3)}{rng.randrange(30)} {rng.choice('ab')}?" for _ in range(400)]
    texts += [ASKED]
    stage(sums=texts, stories=texts[::-1], exam=LONG_EXAM, seeds=PHRASED)
    assert read_rows(tmp_path / "out", SCREENED)[len(texts) - 1]["verdict"] == "kept"
    once = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    # The same rows in groups of 50, checked by two processes.
    for part in (tmp_path / "questions").rglob("*.parquet"):
        pq.write_table(pq.read_table(part), part, row_group_size=50)
    monkeypatch.setattr(stage_module, "LEAST_FOR_PROCESSES", 1)
    monkeypatch.setattr(stage_module, "cores", lambda: 2)
    stage(["sums", "stories"], exam=LONG_EXAM, seeds=PHRASED)
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == once


@pytest.mark.slow  # starts a Ray cluster on this machine
def test_ray_changes_no_byte(stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stage(sums=[f"{STORY} {n % 7}" for n in range(60)], stories=["x", *(f"{STORY} {n}" for n in range(5))])
    once = {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    for part in (tmp_path / "questions").rglob("*.parquet"):
        pq.write_table(pq.read_table(part), part, row_group_size=20)

    def here(*_: Any) -> Any:
        raise AssertionError("checked in this process")

    monkeypatch.setattr(stage_module, "check_all", here)
    stage(["sums", "stories"], runtime={"engine": "ray", "workers": 2})
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == once


def test_processes_end_with_a_stage_that_is_killed(generated, tmp_path: Path):
    # A kill leaves no time to stop the pool. Each process prints its id when it starts to check.
    folder = generated(sums=[f"{STORY} {i}" for i in range(60)])
    part = next((folder / "sums").iterdir())
    pq.write_table(pq.read_table(part), part, row_group_size=20)
    program = f"""
import os, pathlib, time
from stages import screen
from scalequest.params import Screen

def wait(piece):
    pathlib.Path({str(tmp_path)!r}, f"pid-{{os.getpid()}}").touch()
    time.sleep(600)

if __name__ == "__main__":
    screen._check, screen.LEAST_FOR_PROCESSES = wait, 1
    params = Screen(language="any", min_words=1, near_duplicate_jaccard=1.0, decontaminate_ngram=0)
    list(screen.check_all(screen.pieces(pathlib.Path({str(folder)!r}), ["sums"]), params, [], 2))
"""
    (tmp_path / "program.py").write_text(program)
    stage = subprocess.Popen(
        [sys.executable, tmp_path / "program.py"], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    try:
        wait_for(lambda: len(list(tmp_path.glob("pid-*"))) == 2)
    finally:
        stage.kill()
        stage.wait()
    pids = [int(path.name.removeprefix("pid-")) for path in tmp_path.glob("pid-*")]
    wait_for(lambda: not any(psutil.pid_exists(pid) for pid in pids))


def wait_for(condition: Callable[[], bool], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)
