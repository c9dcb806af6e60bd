import re

import pytest

from scalequest.records import INSTRUCTION, write_rows
from scalequest.report.blocks import CLIP
from scalequest.report.identity import COST_PAGE
from scalequest.report.page import fenced, markdown_line
from tests.report.finished import (
    DATA,
    Folder,
    Page,
    section,
)


def test_model_text_cannot_leave_its_fence(folder: Folder) -> None:
    text = section(folder.run()[0], "A look at the data")
    # The response holds four backticks, so its fence has five; the question holds three, so four.
    assert "`````text\nSo it is $\\boxed{3|4}$ ````\n`````" in text
    assert "````text\nWhat is 1 | 2?\n```\n<script>" in text
    outside = re.sub(r"(`{3,})text\n.*?\n\1(?=\n|$)", "", text, flags=re.DOTALL)
    assert "<script>" not in re.sub(r"`[^`\n]*`", "", outside)


def test_model_text_is_escaped_in_the_page(folder: Folder) -> None:
    page = folder.run()[1]
    assert "<b>bold" not in page
    assert "&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt; &amp; &lt;b&gt;bold&lt;/b&gt;" in page
    assert page.count("<script>") == 2  # KaTeX and our own


def test_what_is_too_long_to_show_is_cut_and_counted(folder: Folder) -> None:
    write_rows(folder.args.data, [r | {"response": "x" * (CLIP + 1234)} for r in DATA], INSTRUCTION)
    markdown, page = folder.run()
    for text in (markdown, page):
        assert "x" * CLIP + "\n[1,234 more characters]" in text
        assert "x" * (CLIP + 1) not in text


def test_the_page_stands_alone_and_can_be_read_aloud(folder: Folder) -> None:
    text = folder.run()[1]
    tags = Page(text).tags
    # The one file beside it is for a reader to open: nothing is loaded.
    assert not [a for _, a in tags if a.get("src") or ((a.get("href") or "#")[0] != "#" and a["href"] != COST_PAGE)]
    assert "url(" not in text
    assert "@import" not in text
    svgs = [a for tag, a in tags if tag == "svg"]
    # Scores of each task, the funnel for a narrow and a wide screen; difficulty, words, rewards, agreement; loss and
    # gradient norm of one curve; the lineage of dvc.lock.
    assert len(svgs) == 11
    assert {a["role"] for a in svgs} <= {"img", "group"}
    assert len(re.findall(r"<svg [^>]*><title>[^<]+</title><desc>[^<]+</desc>", text)) == len(svgs)
    assert "base 20.0 plus or minus 4.0 percent" in text
    assert all(a["scope"] in ("col", "row") for tag, a in tags if tag == "th")
    ids = [a["id"] for _, a in tags if "id" in a]
    assert len(ids) == len(set(ids))
    assert {str(a["href"])[1:].split("?")[0] for tag, a in tags if tag == "a" and a["href"] != COST_PAGE} <= set(ids)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a | b", "a \\| b"),
        ("a\nb", "a b"),
        ("<script>", "\\<script\\>"),
        ("`x|y` *", "`x\\|y` \\*"),
        ("max_tokens", "max_tokens"),
    ],
)
def test_a_markdown_line_is_safe_in_a_table(text: str, line: str) -> None:
    assert markdown_line(text) == line


@pytest.mark.parametrize(
    ("text", "fence"), [("plain", "```"), ("``", "```"), ("```", "````"), ("a\n`````\nb", "``````")]
)
def test_a_fence_is_longer_than_any_run_of_backticks(text: str, fence: str) -> None:
    assert fenced(text) == f"{fence}text\n{text}\n{fence}"


def test_three_sections_open_the_page_of_costs(folder: Folder) -> None:
    markdown, text = folder.run()
    for name in ("what-this-is", "training-runs", "work-of-each-step"):
        inside = text.split(f'<section id="{name}"')[1].split("</section>")[0]
        assert '<a href="cost.html"><code>cost.html</code></a>' in inside, name
        assert "<code>scalequest cost --page</code> writes" in inside, name
    # GitHub shows report.md without what a run writes beside it.
    assert "](cost.html)" not in markdown
