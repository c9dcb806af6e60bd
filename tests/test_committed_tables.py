"""The recorded run in Git: its lock, and its tables as a DVC remote, so that a clone can be audited without a run."""

import json
from collections import Counter
from collections.abc import Iterator
from hashlib import md5, sha256
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from dvc.repo import Repo

from scalequest.audit.lock import parse_lock
from scalequest.params import parse_params, parse_yaml, read_yaml
from tests.fakes import ROOT, real_data

TABLES = ROOT / "reports" / "results" / "laptop" / "tables" / "files" / "md5"
LOCK = parse_lock((ROOT / "dvc.lock").read_bytes(), "dvc.lock")


def named() -> Iterator[str]:
    """Hashes of the outputs under ``data/`` in dvc.lock: of files, of folders and of what is in them."""
    for stage in LOCK.values():
        for out in stage.outs:
            if out.path.startswith("data/"):
                yield out.md5
                if out.is_folder:
                    yield from (entry["md5"] for entry in json.loads((TABLES / out.md5[:2] / out.md5[2:]).read_text()))


def test_the_lock_has_no_stage_that_the_pipeline_has_not() -> None:
    """DVC passes such an entry over in silence, and keeps it for ever: a reader takes its hashes for the run's."""
    assert set(LOCK) == {stage.addressing for stage in Repo(str(ROOT)).index.stages}


def test_the_tables_are_those_of_the_lock_and_no_others() -> None:
    """Else run `make record` where the run's files are."""
    there = {path.parent.name + path.name: path for path in TABLES.rglob("*") if path.is_file()}
    assert set(there) == set(named())
    assert all(md5(path.read_bytes()).hexdigest() == name.removesuffix(".dir") for name, path in there.items())


@pytest.mark.parametrize(
    "file", sorted(TABLES.parents[3].glob("gpu-1.5b/**/params.yaml")), ids=lambda file: str(file.parent.name)
)
def test_todays_code_takes_the_parameters_of_the_runs_with_a_teacher(file: Path) -> None:
    """Their page says to start from them. The runs before are started from their own commits."""
    assert parse_params(parse_yaml(file.read_text(), file), str(file)).models["student"]


def test_dvc_finds_the_tables_by_the_name_in_the_readme() -> None:
    config = (ROOT / ".dvc" / "config").read_text()
    assert "['remote \"tables\"']" in config
    assert "url = ../reports/results/laptop/tables" in config
    assert "dvc pull -r tables --allow-missing" in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("cell", ["passed", "rejected", "easiest", "hardest"])
def test_the_cells_of_filters_programs_ask_their_pinned_questions(cell: str) -> None:
    pinned = read_yaml(ROOT / "experiments" / "filters_programs.yaml")["cells"][cell]["set"]["own"]["filtered"]["asked"]
    content = (ROOT / pinned["path"]).read_bytes()
    assert sha256(content).hexdigest() == pinned["sha256"]
    ids = pq.read_table(ROOT / pinned["path"])["id"].to_pylist()
    assert len(set(ids)) == len(ids)
    assert Counter(name.split("/")[0] for name in ids) == {"school": 1_200, "contest": 2_400}


def test_the_rows_of_gsm8k_that_the_results_are_of_are_listed() -> None:
    rows = [int(line) for line in (ROOT / "reports" / "results" / "gsm8k_rows.txt").read_text().splitlines()]
    assert rows == sorted(set(rows))
    assert (len(rows), max(rows)) == (1019, 1318)
    ids = [json.loads(line)["id"] for line in real_data("gsm8k/test.jsonl").read_text().splitlines()]
    assert ids == [f"gsm8k/test/{row}" for row in rows]
