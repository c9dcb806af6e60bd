import json
import re
import zlib
from base64 import b64decode
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.records import LEDGER, write_rows
from scalequest.report import browse
from scalequest.report.blocks import Browser, Column
from scalequest.report.browse import fitting, reading
from scalequest.report.page import browser_json, packed
from tests.report.finished import LEDGER_ROWS, Folder, items


def browsers(page: str) -> dict[str, Any]:
    """The rows of every browser of a page, by its key."""
    found = re.findall(r'data-key="(\w+)">.*?class="rows">([^<]*)</script>', page, re.DOTALL)
    return {key: json.loads(zlib.decompress(b64decode(data))) for key, data in found}


def cells(browser: dict[str, Any], name: str) -> dict[str, Any]:
    """Cells of a row by column."""
    row = next(row for row in browser["rows"] if row["cells"][0] == name)
    return dict(zip([column["key"] for column in browser["columns"]], row["cells"], strict=True))


def texts(browser: dict[str, Any], name: str) -> list[list[str]]:
    return next(row["texts"] for row in browser["rows"] if row["cells"][0] == name)


def test_a_kept_question_has_all_its_answers_with_rewards_and_the_chosen_one(folder: Folder) -> None:
    found = browsers(folder.run()[1])["questions"]
    assert len(found["rows"]) == 10
    kept = cells(found, "sums/0/0")
    assert (kept["outcome"], kept["reward"], kept["agreement"], kept["answer"]) == ("kept", 1.5, 0.75, "3|4")
    answers = [(name, remark) for name, _, remark in texts(found, "sums/0/0") if name.startswith("Answer")]
    assert answers == [
        ("Answer 1", "reward 0.000"),
        ("Answer 2", "reward 0.500 · chosen: final answer 3|4"),
        ("Answer 3", "reward 1.000 · cut"),
    ]


def test_a_dropped_question_says_why_and_shows_its_twin(folder: Folder) -> None:
    found = browsers(folder.run()[1])["questions"]
    life = {name: text for name, text, _ in texts(found, "stories/0/1")}
    assert (
        life["Dropped: near_duplicate"]
        == "nearly the same as an earlier question\nmatches stories/0/0\nevidence: jaccard 0.900"
    )
    assert life["Its twin stories/0/0"].endswith("(stories/0/0)")
    assert cells(found, "stories/0/1")["reward"] is None
    assert "lowest kept 0.500" in texts(found, "sums/0/5")[1][1]


def test_the_order_of_outcomes_is_the_order_of_the_filters(folder: Folder) -> None:
    found = browsers(folder.run()[1])["questions"]
    order = next(column["order"] for column in found["columns"] if column["key"] == "outcome")
    assert order == ["language", "contaminated", "near_duplicate", "unsolvable", "no_verdict", "too_easy", "kept"]


def test_rare_outcomes_are_drawn_before_common_ones(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(browse, "QUESTIONS", 7)
    monkeypatch.setattr(browse, "RARE", 1)
    found = browsers(folder.run()[1])["questions"]
    # Ten questions have seven outcomes.
    assert len({row["cells"][2] for row in found["rows"]}) == 7


def test_items_have_every_models_answer_and_the_graders_reading(folder: Folder) -> None:
    found = browsers(folder.run()[1])["items"]
    assert len(found["rows"]) == 202
    # On sums the base is right on items 0 to 19, the student on 15 to 64, neither in the strict form.
    shown = cells(found, "embedded_sums/embedded_sums/17")
    assert (shown["base"], shown["student"]) == ("right, other form", "right, other form")
    shown = cells(found, "embedded_sums/embedded_sums/3")
    assert (shown["base"], shown["student"]) == ("right, other form", "wrong")
    assert [name for name, *_ in texts(found, "embedded_sums/embedded_sums/3")] == [
        "Question",
        "Expected answer",
        "base",
        "student",
    ]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"strict": 1.0, "flexible": 1.0}, "right"),
        ({"flexible": 1.0}, "right, other form"),
        ({"timeout": 1.0}, "check timed out"),
        ({"finish_reason": "length"}, "cut"),
        ({"finish_reason": "too_long"}, "too_long"),
        ({"unparsed": 1.0}, "no answer read"),
        ({}, "wrong"),
    ],
)
def test_the_graders_reading_has_a_name(values: dict[str, Any], words: str) -> None:
    row = items("base")[0] | {"flexible": 0.0}
    assert reading(row | values) == words


def test_rewrites_are_beside_their_originals(folder: Folder) -> None:
    found = browsers(folder.run()[1])["rewrites"]
    pair = cells(found, "sums/0/0")
    assert (pair["verdict"], pair["growth"]) == ("pair", 1.5)
    assert found["beside"] == [0, 1]
    # What was measured of both sides, and first of all rows.
    assert (pair["judge"], pair["harder"]) == ("solvable → unsolvable", 0.25)
    assert found["rows"][0]["cells"][0] == "sums/0/0"
    life = texts(found, "sums/0/0")
    assert [life[0][2], life[1][2]] == ["solvable · difficulty 0.500", "unsolvable · difficulty 0.750"]
    assert [text[0] for text in life[2:]] == [
        "Judge on the original",
        "Judge on the rewrite",
        "What the optimizer wrote",
    ]
    assert (cells(found, "stories/0/0")["judge"], cells(found, "stories/0/0")["harder"]) == ("not asked", None)
    assert texts(found, "sums/0/1")[1][2] == "no pair: the rewrite is the original question"


def test_as_many_rows_are_kept_as_fit() -> None:
    def make(n: int) -> Browser:
        rows = [{"cells": [str(k)], "texts": [["q", str(hash(k * 7919) ** 3), ""]]} for k in range(n)]
        return Browser("x", f"{n}", "", [Column("id", "id", "text")], rows)

    small = fitting(make, 2_000, 5_000)
    assert 0 < len(small.rows) < 2_000
    assert len(packed(browser_json(small))) <= 5_000
    assert len(fitting(make, 2_000, 10**9).rows) == 2_000


def test_a_secret_in_a_packed_row_stops_the_report(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    # The judge's completion is in no other place of the page.
    monkeypatch.setenv("HF_TOKEN", "</b> Yes")
    with pytest.raises(UserError, match=r"index\.html: holds the value of HF_TOKEN"):
        folder.run()
    assert not folder.args.page.exists()


def test_model_text_cannot_leave_the_packed_rows(folder: Folder) -> None:
    rows = [row | {"question": "</script><script>alert(1)</script>"} for row in LEDGER_ROWS]
    write_rows(folder.args.ledger, rows, LEDGER)
    page = folder.run()[1]
    assert "<script>alert" not in page
    assert texts(browsers(page)["questions"], "sums/0/0")[0][1] == "</script><script>alert(1)</script>"
