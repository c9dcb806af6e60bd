import json
import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.io import rounded
from scalequest.outcomes import WARNINGS
from scalequest.params import Params
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.journal import only_writer
from scalequest.runtime.stage import Declared, StageRun, flatten
from tests.fakes import LAPTOP, ROOT

HEAD = """\
import signal, sys, time
from pathlib import Path
from scalequest.runtime import stage
from scalequest.errors import UserError
from scalequest.runtime.facts import StageFacts

# What DVC would say of this stage, were it running one.
stage.current_stage = lambda outputs=False: FACTS

def main(args, run):
{body}

FACTS = {facts}
stage.run_stage(main, "A stage of the tests.", paths=("out", "in_file"), names=("generator",))
"""
IN_DVC = 'StageFacts("judge", Path.cwd(), {"data/x": "abc"}, {"judge": {}, "seed": 17})'


@pytest.fixture
def stage(tmp_path: Path) -> Callable[..., "subprocess.Popen[str]"]:
    """Start a stage with this ``main`` in a process of its own."""
    (tmp_path / "params.yaml").write_text(LAPTOP.read_text().replace("  mlflow: true", "  mlflow: false"))
    scripts = iter(range(100))

    def start(body: str, facts: str = "None", arguments: str = "--out o --in-file i --generator sums") -> Any:
        script = tmp_path / f"stage{next(scripts)}.py"
        script.write_text(HEAD.format(body=textwrap.indent(body, "    "), facts=facts))
        return subprocess.Popen(
            [sys.executable, script.name, *arguments.split()],
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # A shell's background job ignores Ctrl-C, and its children inherit that: these must not.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )

    return start


def ended(process: "subprocess.Popen[str]") -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


# ---------------------------------------------------------------------------------------------------------- exit codes


def test_a_stage_that_works_ends_with_0_and_has_its_arguments_and_parameters(stage, tmp_path: Path):
    body = """\
print(type(args.out).__name__, args.in_file, args.generator, run.name)
run.metrics(args.out, {"seed": run.params.seed})"""
    code, out, err = ended(stage(body))
    assert (code, err) == (0, "")
    assert out == "PosixPath i sums by-hand\n"
    assert json.loads((tmp_path / "o").read_text()) == {"seed": 17}


def test_bad_input_ends_with_2_and_the_message_alone(stage):
    code, out, err = ended(stage('raise UserError("question q17: 3 responses, expected 5")'))
    assert code == 2
    assert err.startswith("error: question q17: 3 responses, expected 5\n")
    assert "Traceback" not in err
    assert out == ""


def test_a_bad_parameter_file_ends_with_2_before_the_work(stage, tmp_path: Path):
    params = tmp_path / "params.yaml"
    params.write_text(params.read_text().replace("  beta:", "  betta:"))
    code, out, err = ended(stage('print("worked")'))
    assert code == 2
    assert "error: params.yaml: 2 problem(s)" in err
    assert "qpo.betta: unknown parameter; did you mean 'beta'?" in err
    assert out == ""


def test_a_bug_of_ours_ends_with_1_and_a_traceback(stage):
    code, _, err = ended(stage("assert 1 == 2, 'a bug'"))
    assert code == 1
    assert "Traceback" in err
    assert "AssertionError: a bug" in err


def test_a_crash_inside_a_library_prints_its_traceback(stage):
    code, _, err = ended(stage("import ctypes; ctypes.string_at(0)"))
    assert code == -signal.SIGSEGV
    assert "Segmentation fault" in err
    assert " in main" in err


def test_so_does_a_crash_of_a_process_that_the_stage_starts(stage):
    crash = "import ctypes; ctypes.string_at(0)"
    code, _, err = ended(stage(f"import subprocess; subprocess.run([sys.executable, '-c', {crash!r}])"))
    assert code == 0
    assert "Segmentation fault" in err
    assert " in string_at" in err


def test_ctrl_c_ends_with_130_because_dvc_would_take_0_for_done(stage):
    code, _, err = ended(stage("raise KeyboardInterrupt"))
    assert code == 130
    assert err == "stopped; finished shards are kept, run again to resume\n"


def test_a_real_interrupt_ends_with_130(stage):
    process = stage('print("ready", flush=True); time.sleep(60)')
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    assert ended(process)[0] == 130


def test_a_termination_is_no_success(stage):
    process = stage('print("ready", flush=True); time.sleep(60)')
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGTERM)
    code, _, err = ended(process)
    assert code == 128 + signal.SIGTERM
    assert "Traceback" not in err


def test_a_full_disk_ends_with_2_and_names_the_file(stage):
    code, _, err = ended(stage('raise OSError(28, "No space left on device", "data/judged/part-00000.parquet")'))
    assert code == 2
    assert err.startswith("error: disk full while writing data/judged/part-00000.parquet: free some space")
    assert "Traceback" not in err


def test_another_failure_of_the_system_is_not_hidden(stage):
    code, _, err = ended(stage('open("nowhere/file")'))
    assert code == 1
    assert "FileNotFoundError" in err


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        pytest.param("--out o --generator sums", "the following arguments are required: --in-file", id="missing"),
        pytest.param("--out o --in-file i --generator g --beta 1", "unrecognized arguments: --beta 1", id="unknown"),
    ],
)
def test_arguments_are_checked(stage, arguments: str, expected: str):
    code, _, err = ended(stage("pass", arguments=arguments))
    assert code == 2
    assert expected in err


def test_help_shows_the_stages_docstring(stage):
    code, out, _ = ended(stage("pass", arguments="--help"))
    assert code == 0
    assert "A stage of the tests." in out


def test_a_thread_that_hangs_does_not_keep_a_finished_stage(stage):
    # vLLM and torch leave such threads behind.
    assert ended(stage("import threading; threading.Thread(target=time.sleep, args=(600,)).start()"))[0] == 0


# ---------------------------------------------------------------------------------------------------------- one writer


def test_a_second_writer_is_refused_and_told_who_is_first(stage):
    first = stage('print("ready", flush=True); time.sleep(60)', facts=IN_DVC)
    try:
        assert first.stdout.readline() == "ready\n"
        code, out, err = ended(stage('print("worked")', facts=IN_DVC))
        assert code == 2
        assert f"error: stage judge is still being run by process {first.pid}, left over from a DVC" in err
        assert out == ""
        # Another stage is free to run.
        assert ended(stage('print("worked")', facts=IN_DVC.replace("judge", "respond")))[0] == 0
    finally:
        first.kill()
        first.communicate()
    # The lock goes with its process, however that ended.
    assert ended(stage("pass", facts=IN_DVC))[0] == 0


def test_the_lock_is_free_after_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    facts = StageFacts("judge", tmp_path)

    def fail() -> None:
        with only_writer(facts):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    with only_writer(facts):
        assert (tmp_path / ".work" / "locks" / "judge").read_text() == str(os.getpid())


def test_by_hand_there_is_no_lock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    with only_writer(None):
        assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_and_costs_no_finished_shard(stage, tmp_path: Path):
    """A real one: a tmpfs of one megabyte. After room was made, the rerun pays only the shards that were not yet written."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", disk], capture_output=True, check=False
    ).returncode:
        pytest.skip("a small tmpfs cannot be mounted here (needs root)")
    body = """
import random
from scalequest.records import JUDGED
from scalequest.sampling.shards import map_shards
def work(items, seed, shard):
    print("paid", shard, flush=True)
    draw = random.Random(seed)
    text = "".join(chr(draw.randrange(33, 127)) for _ in range(100_000))  # zstd makes 82 kB of it
    return [{"id": "a", "verdict": "solvable", "completion": text, "finish_reason": "stop"}], 1
table = map_shards(run, range(20), lambda: work, JUDGED, shard_size=1)
print("rows", table.num_rows)
"""
    facts = 'StageFacts("judge", Path("disk").resolve(), {"data/x": "abc"}, {"judge": {}, "seed": 17})'
    try:
        code, out, err = ended(stage(body, facts=facts))
        assert code == 2
        assert "error: disk full while writing" in err
        assert "finished shards are kept" in err
        paid = out.split("\n").count("paid 0"), out.count("paid")
        assert paid[0] == 1
        assert 5 < paid[1] < 20
        finished = list(disk.glob(".work/journal/judge/*/shard-*.parquet"))
        assert len(finished) == paid[1] - 1
        subprocess.run(["mount", "-o", "remount,size=8m", disk], check=True)
        code, again, _ = ended(stage(body, facts=facts))
        assert code == 0
        assert again.endswith("rows 20\n")
        assert again.count("paid") == 20 - len(finished)
    finally:
        subprocess.run(["umount", disk], check=True)


# ------------------------------------------------------------------------------------------------ parameters, journal


def test_only_declared_parameters_can_be_read(laptop: Params):
    declared = Declared(laptop, ["seed", "engine.dtype", "generators.sums.seed_mix"])
    assert declared.seed == laptop.seed
    assert declared.engine is laptop.engine
    assert declared.generators is laptop.generators
    assert declared.runtime is laptop.runtime  # changes no byte, so no stage lists it
    with pytest.raises(AssertionError, match=r"params\.qpo is read but not listed under this stage's params"):
        _ = declared.qpo


def test_by_hand_every_parameter_can_be_read(laptop: Params):
    assert Declared(laptop, None).qpo is laptop.qpo


def test_a_finished_stage_says_so_in_its_journal_and_a_failed_one_does_not(stage, tmp_path: Path):
    ended(stage('run.journal; raise UserError("no")', facts=IN_DVC))
    done = list((tmp_path / ".work" / "journal" / "judge").glob("*/DONE"))
    assert done == []
    assert ended(stage("pass", facts=IN_DVC))[0] == 0
    assert len(list((tmp_path / ".work" / "journal" / "judge").glob("*/DONE"))) == 1


def test_a_stage_is_marked_as_finished_when_all_is_recorded(stage, tmp_path: Path):
    body = """
from scalequest.runtime import environment
def no(*_): raise RuntimeError("not recorded")
environment.record = no
"""
    assert ended(stage(body, facts=IN_DVC))[0] == 1
    assert list((tmp_path / ".work" / "journal" / "judge").glob("*/DONE")) == []


# ------------------------------------------------------------------------------------------------------------- metrics


def test_metrics_are_written_and_kept_for_tracking(tmp_path: Path, laptop: Params):
    run = StageRun(laptop)
    run.metrics(tmp_path / "m.json", {"rows": 3, "by": {"sums": 0.5, "note": "text"}}, {"one_verdict": False})
    assert json.loads((tmp_path / "m.json").read_text()) == {
        "by": {"note": "text", "sums": 0.5}, "warnings": {"one_verdict": 0}, "rows": 3,
    }  # fmt: skip
    assert run.logged == {"rows": 3.0, "by.sums": 0.5, "warnings.one_verdict": 0.0}


def test_metrics_hold_no_fact_about_the_machine(tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch):
    files = []
    for cpu in ("AMD", "Intel"):
        monkeypatch.setattr("scalequest.runtime.facts.hardware", lambda cpu=cpu: {"cpu": cpu})
        StageRun(laptop, StageFacts("judge", tmp_path)).metrics(tmp_path / cpu, {"rows": 3})
        files.append((tmp_path / cpu).read_bytes())
    assert files[0] == files[1] == b'{\n  "rows": 3\n}\n'


def test_warnings_are_counted_and_logged(tmp_path: Path, laptop: Params, caplog: pytest.LogCaptureFixture):
    with caplog.at_level("WARNING", logger="scalequest"):
        StageRun(laptop).metrics(tmp_path / "m.json", {}, {"one_verdict": True, "no_verdicts": False})
    assert json.loads((tmp_path / "m.json").read_text())["warnings"] == {"no_verdicts": 0, "one_verdict": 1}
    assert caplog.messages == [f"warning: one_verdict: {WARNINGS['one_verdict']}"]


@pytest.mark.parametrize("where", ["value", "key", "below"])
def test_metrics_with_the_endpoints_key_are_not_written(
    where: str, tmp_path: Path, laptop: Params, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(laptop.runtime.api.key_variable, "correct horse")
    values: dict[str, Any] = {
        "value": {"m": "correct horse"},
        "key": {"correct horse": 1},
        "below": {"a": [{"b": "correct horse"}]},
    }[where]
    with pytest.raises(UserError, match=rf"m\.json: holds the value of {laptop.runtime.api.key_variable}"):
        StageRun(laptop).metrics(tmp_path / "m.json", values)
    assert not (tmp_path / "m.json").exists()


def test_a_warning_without_a_sentence_is_our_bug(tmp_path: Path, laptop: Params):
    with pytest.raises(KeyError, match="no_such_flag"):
        StageRun(laptop).metrics(tmp_path / "m.json", {}, {"no_such_flag": True})


@pytest.mark.parametrize(
    ("values", "flat"),
    [
        ({}, {}),
        ({"a": 1, "b": {"c": {"d": 2}}}, {"a": 1.0, "b.c.d": 2.0}),
        ({"a": "text", "b": None, "c": [1]}, {}),
        ({"a": True}, {"a": 1.0}),
    ],
    ids=["empty", "nested", "no_numbers", "truth_value"],
)
def test_nested_numbers_get_dotted_names(values: dict[str, Any], flat: dict[str, float]):
    assert flatten(values) == flat


def test_rounding_drops_the_noise():
    assert rounded(0.1 + 0.2) == 0.3
    assert rounded(2 / 3, 2) == 0.67
