import json
from pathlib import Path

import pytest

from scalequest.params import Params
from tests.report.finished import Folder


@pytest.fixture
def folder(tmp_path: Path, laptop: Params) -> Folder:
    return Folder(tmp_path, laptop)


def found(folder: Folder) -> dict:
    folder.run()
    return json.loads(folder.args.summary.read_text())


def columns(values: dict, prefix: str = "") -> list[str]:
    """The headers that ``dvc metrics show`` makes."""
    return [
        c for k, v in values.items() for c in (columns(v, f"{prefix}{k}.") if isinstance(v, dict) else [f"{prefix}{k}"])
    ]


def test_the_summary_has_what_runs_are_compared_by(folder: Folder):
    summary = found(folder)
    # tests/report/finished.py: 6 questions of sums and 4 of stories, 4 kept, 2 pairs left after a too long one.
    assert (summary["questions"], summary["kept"], summary["pairs"]) == (10, 4, 2)
    student = json.loads((folder.args.scores / "student.json").read_text())["embedded_sums"]
    assert summary["embedded_sums"]["student"] == pytest.approx(100 * student["flexible"])
    assert summary["embedded_sums"]["stderr"] == pytest.approx(100 * student["flexible_stderr"])
    assert summary["warnings"] > 0


def test_the_table_of_metrics_is_narrow(folder: Folder):
    """DVC puts four blanks between columns, and the path before them."""
    folder.change("judge", solvable_frac=0.806867)
    folder.change("reward_model", held_out={"accuracy": 0.683333, "pairs": 52})
    names = columns(found(folder))
    assert len(names) == 6 + 2 * 2  # and two numbers for each of two tasks
    assert len("reports/summary.json") + sum(4 + len(name) for name in names) < 200
    assert not any("error" in name.split(".") for name in names)  # `dvc metrics show` would report a failure


def test_what_was_not_measured_is_left_out(folder: Folder):
    folder.change("reward_model", held_out={})
    summary = found(folder)
    assert "reward" not in summary
    assert None not in summary.values()


def test_plots_have_the_same_columns_in_every_run_and_their_shares_add_up(folder: Folder):
    folder.run()
    heads = {}
    for path in sorted(folder.args.distributions.glob("*.csv")):
        head, *rows = (line.split(",") for line in path.read_text().splitlines())
        heads[path.stem] = head
        for column in range(1, len(head)):
            assert sum(float(row[column]) for row in rows) == pytest.approx(1, abs=1e-4)
    assert heads == {
        "agreement": ["from", "chosen"],
        "difficulty": ["from", "generated", "kept"],
        "reward": ["from", "answers", "chosen"],
        "words": ["from", "generated", "kept"],
    }
