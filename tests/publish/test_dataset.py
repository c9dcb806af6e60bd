"""The published tables load as they are, and say what the run's tables say."""

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import yaml

from scalequest.audit.lock import read_lock
from scalequest.domains.maths import solve_prompt
from scalequest.publish import command
from scalequest.publish.dataset import CONFIGS, write_configs
from scalequest.records import LEDGER, read_rows
from tests.audit.pipeline import Pipeline


def rows(published: Path, config: str) -> list[dict]:
    [found] = [one for one in CONFIGS if one.name == config]
    return pq.read_table(published / "dataset" / found.path).to_pylist()


def test_every_configuration_of_the_card_loads_with_datasets(published: Path, tmp_path: Path) -> None:
    import datasets

    folder = published / "dataset"
    head = yaml.safe_load((folder / "README.md").read_text().split("---")[1])
    names = [config["config_name"] for config in head["configs"]]
    assert names == ["default", "responses", "preferences", "ledger"] == datasets.get_dataset_config_names(str(folder))
    for name in names:
        loaded = datasets.load_dataset(str(folder), name, split="train", cache_dir=str(tmp_path))
        assert loaded.to_list() == rows(published, name)
        [config] = [one for one in CONFIGS if one.name == name]
        assert loaded.column_names == list(config.columns)  # each column is explained, and in this order


def test_the_messages_are_the_prompt_and_the_answer_that_the_student_learned(published: Path) -> None:
    first, second = rows(published, "default")
    assert (first["id"], second["id"]) == ("sums/0/0", "sums/0/1")
    assert first["messages"] == [
        {"role": "user", "content": solve_prompt("What is 1 + 1?")},
        {"role": "assistant", "content": "The answer is 01."},
    ]


def test_all_candidates_are_there_with_rewards_and_the_kept_one_is_marked(published: Path) -> None:
    # Three kept questions of two answers each; of question 5 no answer ended in a number, so none was kept.
    found = rows(published, "responses")
    assert [(row["id"], row["reward"], row["kept"]) for row in found] == [
        ("sums/0/0#0", 0.0, False), ("sums/0/0#1", 1.0, True), ("sums/0/1#0", 0.0, False), ("sums/0/1#1", 1.0, True),
        ("sums/0/5#0", 0.0, False), ("sums/0/5#1", 1.0, False),
    ]  # fmt: skip
    assert found[0]["question"] == "What is 1 + 1?"


def test_preferences_are_pairs_as_trl_takes_them_without_rejected_rewrites(published: Path) -> None:
    assert rows(published, "preferences") == [
        {
            "id": "sums/0/0", "generator": "sums", "direction": "difficulty", "prompt": "",
            "chosen": "What is 17 + 25?", "rejected": "What is 1 + 1?",
        }
    ]  # fmt: skip


def test_the_ledger_is_the_runs_own_file(published: Path) -> None:
    ledger = published / "dataset" / "ledger" / "ledger.parquet"
    assert ledger.read_bytes() == (published.parent / "repository" / "data" / "ledger.parquet").read_bytes()
    assert len(read_rows(ledger, LEDGER)) == 6


def test_rows_are_in_the_order_of_their_numbers_and_twice_the_same_bytes(pipeline: Pipeline, tmp_path: Path) -> None:
    ids = [f"sums/{shard}/{row}" for shard in (0, 2, 10) for row in (1, 9, 11)]
    pipeline.change("data/instruct.parquet", lambda rows: [rows[0] | {"id": name} for name in reversed(ids)])
    pipeline.lock("reward_select")
    for name in ("one", "two"):
        configs = write_configs(pipeline.tables(), tmp_path / name)
    assert [config.name for config in configs] == ["default", "responses", "ledger"]  # no stage wrote preferences
    one, two = (tmp_path / name / "data" / "train.parquet" for name in ("one", "two"))
    assert pq.read_table(one)["id"].to_pylist() == ids
    assert one.read_bytes() == two.read_bytes()


def test_a_run_without_rewards_has_its_candidates_and_no_word_of_a_reward_model(
    pipeline: Pipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline.without_rewards(monkeypatch)
    pipeline.commit()
    command.write_hub_folder(pipeline.repository, pipeline.tables().lock, tmp_path, "Tiny run", {}, "me/data")
    found = pq.read_table(tmp_path / "dataset" / "responses" / "train.parquet").to_pylist()
    assert [(row["id"], row["reward"], row["kept"]) for row in found] == [
        ("sums/0/0#0", None, False), ("sums/0/0#1", None, True), ("sums/0/1#0", None, False), ("sums/0/1#1", None, True),
        ("sums/0/5#0", None, False), ("sums/0/5#1", None, False),
    ]  # fmt: skip
    assert pq.read_table(tmp_path / "dataset" / "data" / "train.parquet")["reward"].to_pylist() == [None, None]
    card = (tmp_path / "dataset" / "README.md").read_text()
    assert "one that gives the most frequent answer is kept" in card
    assert "They are what a model wrote.\n" in card
    assert "reward model likes" not in card
    metadata = json.loads((tmp_path / "dataset" / "croissant.json").read_text())
    assert metadata["rai:dataAnnotationProtocol"] == [
        "2 answers per question were sampled from the solver, and one that gives the most frequent answer was kept."
    ]
    assert "preferred" not in metadata["rai:dataLimitations"][0]


def test_a_run_without_a_known_domain_has_the_bare_question(pipeline: Pipeline, tmp_path: Path) -> None:
    write_configs(pipeline.tables(), tmp_path)
    [first, _] = pq.read_table(tmp_path / "data" / "train.parquet").to_pylist()
    assert first["messages"][0]["content"] == "What is 1 + 1?"
    assert "domain" not in read_lock(pipeline.repository, pipeline.repository.revision("workspace")).stages["respond"].params  # fmt: skip


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.name)
def test_no_column_is_left_unexplained(config) -> None:
    assert all(config.columns.values())
