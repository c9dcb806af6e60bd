import json
import re
from pathlib import Path

import pytest

from scalequest.cli import main
from scalequest.report.versus import short
from tests.audit.pipeline import M, Pipeline


def lines_of(page: str) -> list[str]:
    """Rows of tables, captions and paragraphs as words."""
    parts = re.split(r"</tr>|</p>|</text>|</figcaption>", page.split("</head>")[1].split("</main>")[0])
    return [" ".join(re.sub(r"<[^>]+>", " ", part).split()) for part in parts]


def items(right: set[int]) -> list[dict[str, object]]:
    return [
        {"task": "sums", "split": "test", "shots": 0, "id": f"sums/{n}", "question": "q", "answer": "1", "completion": "1",
         "finish_reason": "stop", "strict": 0.0, "flexible": float(n in right), "unparsed": 0.0, "timeout": 0.0}
        for n in range(40)
    ]  # fmt: skip


def score(share: float) -> str:
    values = {"n": 40, "flexible": share, "flexible_stderr": 0.08, "strict": 0.0, "strict_stderr": 0.02}
    return json.dumps({"sums": values})


def test_two_runs_are_beside_each_other_on_a_page(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    # Ten items are right in both runs, one in the first alone and twelve in the second alone.
    pipeline.change("data/samples/student.parquet", lambda rows: items(set(range(11))))
    pipeline.write("eval/scores/student.json", score(0.275))
    pipeline.lock()
    pipeline.commit()
    pipeline.params["instruct_tune"]["epochs"] = 2
    pipeline.change("data/samples/student.parquet", lambda rows: items({*range(10), *range(20, 32)}))
    pipeline.write("eval/scores/student.json", score(0.55))
    pipeline.write(f"{M}/filter.json", json.dumps({"outcomes": {"kept": 2, "marked_bad": 1, "unsolvable": 3}}))
    pipeline.lock()
    monkeypatch.chdir(pipeline.root)
    page = tmp_path / "page.html"
    with pytest.raises(SystemExit) as ended:
        main(["compare", "main", "--page", str(page)])
    assert ended.value.code == 1
    lines = lines_of(page.read_text(encoding="utf-8"))
    assert "student, sums , flexible 27.5 ± 8.0 55.0 ± 8.0" in lines
    # 11 more of 40 items: 27.5 points; exact McNemar of 12 against 1: 28 / 8192 = 0.0034.
    [paired] = [line for line in lines if line.startswith("student, sums , flexible workspace +27.5")]
    assert paired.endswith("better (p = 0.0034) 40 12 1")
    assert any(line.endswith("not significant (p = 1) 40 0 0") for line in lines)  # strict: none right in either
    assert "marked_bad 0 (0.0 %) 1 (16.7 %) a reader marked it bad in the report ( filter.marks )" in lines
    # What differs upstream first: the filter's numbers, before the student's scores.
    assert f"The first that differs is {M}/filter.json" in lines
    found = [at for at, line in enumerate(lines) for name in (f"{M}/filter.json filter", "data/samples/student.parquet evaluate@student") if line.startswith(name)]  # fmt: skip
    assert len(found) == 2
    assert found == sorted(found)
    assert len([line for line in lines if line.startswith("workspace")]) >= 4  # a strip in each distribution
    assert "data/samples/student.parquet" in capsys.readouterr().out


def test_tables_that_are_not_here_are_named_and_more_runs_are_compared_with_the_first(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = tmp_path / "kept" / "dvc.lock"
    lock.parent.mkdir()
    lock.write_text((pipeline.root / "dvc.lock").read_text().replace("md5: ", "md5: 0"))
    monkeypatch.chdir(pipeline.root)
    with pytest.raises(SystemExit):
        main(["compare", "main", "workspace", str(lock), "--page", str(tmp_path / "page.html"), "--json"])
    assert [facts["verdict"].split()[0] for facts in json.loads(capsys.readouterr().out)] == ["Same", "Equal"]
    text = " ".join(lines_of((tmp_path / "page.html").read_text(encoding="utf-8")))
    assert f"The tables of {lock} are not here. Run: dvc pull" in text
    assert "main and workspace : Same bytes in all" in text


@pytest.mark.parametrize(
    ("name", "shown"),
    [("beta", "beta"), ("/a/runs/one/dvc.lock", "one"), ("/a/clone", "a/clone"), ("HEAD~2", "HEAD~2")],
)
def test_a_run_has_a_short_name(name: str, shown: str) -> None:
    assert short(name) == shown
