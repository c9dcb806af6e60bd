"""CPU time and peak memory of the stages without a model, on made-up rows, one size at a time.

    python benchmarks/scale.py filter --rows 2000000 --folder /tmp/scale
    python benchmarks/scale.py reward_select --rows 1000000 --folder /tmp/scale
    python benchmarks/scale.py respond --rows 100000 --folder /tmp/scale
    python benchmarks/scale.py reward --rows 100000 --folder /tmp/scale
    python benchmarks/scale.py report --rows 1000000 --folder /tmp/scale --run FOLDER_OF_A_FINISHED_RUN
    python benchmarks/scale.py store --rows 1000000 --folder /tmp/scale
    python benchmarks/scale.py dvc --rows 1000000 --folder /tmp/scale

Rows are generated questions for `filter` and `report`, kept ones with five responses each for the others. `respond` and
`reward` run with an engine that answers at once, so what is measured is the work around it. `store` writes and reads a row
store of five responses per row, `dvc` adds the response shards to DVC and checks them out.

The stage is a process of its own. CPU seconds and memory are those of it and of all processes below it: proportional set
size, so that shared pages count once. On a machine with other work the wall-clock time says little; the load stands beside it.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from argparse import Namespace
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import scale_repeated
from scale_data import GENERATORS, SOLUTION, place, write_answers, write_generated, write_instruct, write_kept

from scalequest.params import Params, load_all
from scalequest.records import COMPLETION, FILTERED, RESPONSE, parts_of, read_rows, row_groups, table
from scalequest.runtime.facts import StageFacts
from scalequest.runtime.rows import RowStore
from scalequest.runtime.stage import StageRun

ROOT = Path(__file__).parents[1]
SAMPLES = 5
SHARD_SIZE = 16_384
# Above so many rows the texts repeat (`scale_repeated.py`).
MOST_MADE = 2_000_000
ANSWER = {"text": SOLUTION, "finish_reason": "stop", "n_tokens": 180}


class Instant:
    """An engine that answers at once: the same text, or the same score."""

    def __call__(self, items: Sequence[Any], _seed: int, _shard: int) -> tuple[list[dict[str, Any]], int]:
        """A row per item."""
        from scalequest.sampling.score import text_key

        if items and hasattr(items[0], "key"):
            return [{"key": item.key, **ANSWER} for item in items], 180 * len(items)
        return [{"key": text_key(item), "score": 0.5} for item in items], 180 * len(items)


def parameters() -> Params:
    """Those of the repository, with the generators of the made-up questions."""
    return load_all(ROOT / "params.yaml").model_copy(update={"mix": list(GENERATORS)})


def filter_rows(folder: Path, out: Path, rows: int) -> None:
    """Run `filter`."""
    from stages import filter as stage

    params = parameters()
    params = params.model_copy(update={"filter": params.filter.model_copy(update={"n_questions": rows // 2})})
    names = {"screened": folder / "screened", "judged": folder / "judged", "difficulty": folder / "difficulty"}
    names |= {"out": out / "filtered.parquet", "ledger": out / "ledger.parquet", "metrics": out / "metrics.json"}
    stage.main(Namespace(**names), StageRun(params))


def reward_select(folder: Path, out: Path, _: int) -> None:
    """Run `reward_select`."""
    from stages import reward_select as stage

    names = {"questions": folder / "filtered.parquet", "responses": folder / "responses", "rewards": folder / "rewards"}
    names |= {"out": out / "instruct.parquet", "metrics": out / "metrics.json"}
    stage.main(Namespace(**names), StageRun(parameters()))


def respond(folder: Path, out: Path, _: int) -> None:
    """Run `respond` without a model."""
    from scalequest.sampling import sample
    from stages import respond as stage

    sample.Answering = lambda *_: Instant()  # type: ignore[assignment,misc]
    params = parameters()
    params = params.model_copy(update={"respond": params.respond.model_copy(update={"n_samples": SAMPLES})})
    names = {"model": folder / "model", "questions": folder / "filtered.parquet", "out": out / "responses"}
    stage.main(Namespace(**names, metrics=out / "metrics.json"), with_store("respond", folder, out, params))


def reward(folder: Path, out: Path, _: int) -> None:
    """Run `reward` without a model."""
    from scalequest.sampling import score
    from stages import reward as stage

    score.Scoring = lambda *_: Instant()  # type: ignore[assignment,misc]
    names = {"model": folder / "model", "questions": folder / "filtered.parquet", "responses": folder / "responses"}
    names |= {"out": out / "rewards", "metrics": out / "metrics.json"}
    stage.main(Namespace(**names), with_store("reward", folder, out, parameters()))


def with_store(name: str, folder: Path, out: Path, params: Params) -> StageRun:
    """A run whose finished rows are kept on disk, as under DVC; shards of a GPU's size."""
    section = getattr(params, name).model_copy(update={"shard_size": SHARD_SIZE})
    return StageRun(
        params.model_copy(update={name: section}), StageFacts(name, out, {str(folder / "model"): "0" * 32}, {})
    )


def store(folder: Path, out: Path, _: int) -> None:
    """Write a row store shard by shard, as `respond` does, then open it again and read all rows."""
    groups = row_groups(folder / "responses", RESPONSE)
    keys = [f"{number:08d}{at:024d}" for number, group in enumerate(groups) for at in range(group.rows)]
    opened = RowStore.open(out, "respond", {}, COMPLETION, keys)
    for number, group in enumerate(groups):
        texts = group.read(["response", "finish_reason", "n_tokens"]).to_pylist()
        rows = [{"key": f"{number:08d}{at:024d}", "text": row.pop("response")} | row for at, row in enumerate(texts)]
        opened.add(table(rows, COMPLETION))
    written = time.process_time()
    del opened
    found = RowStore.open(out, "respond", {}, COMPLETION, keys)
    assert found.there.all()
    assert sum(len(found.rows(found.places[at : at + 10_000])) for at in range(0, len(keys), 10_000)) == len(keys)
    print(json.dumps({"write_cpu_s": round(written, 1), "read_cpu_s": round(time.process_time() - written, 1)}))


def dvc(folder: Path, out: Path, _: int) -> None:
    """`dvc add` of the response shards, `dvc status`, and a checkout after they were removed."""
    shutil.copytree(folder / "responses", out / "responses")
    run = partial(subprocess.run, cwd=out, check=True, stdout=subprocess.DEVNULL)
    program = [sys.executable, "-m", "dvc"]
    run([*program, "init", "--no-scm", "-q"])
    found = {"files": len(parts_of(out / "responses", RESPONSE))}
    found["bytes"] = sum(path.stat().st_size for path in (out / "responses").iterdir())
    for name, command in (("add", ["add", "responses"]), ("status", ["status"]), ("checkout", ["checkout"])):
        if name == "checkout":
            shutil.rmtree(out / "responses")
        before = psutil.Process().cpu_times()
        run([*program, *command])
        after = psutil.Process().cpu_times()
        cpu = after.children_user + after.children_system - before.children_user - before.children_system
        found[f"{name}_cpu_s"] = round(cpu, 1)
    print(json.dumps(found))


def report(_: Path, out: Path, __: int) -> None:
    """Run `report` on what ``make_run`` made."""
    from stages import report as stage

    os.chdir(out / "run")
    names = {
        name: Path("data") / name for name in ("judged", "responses", "rewards", "samples", "attempts", "preferences")
    }
    names |= {name: Path("data") / name for name in ("preference_check", "qpo_questions")}
    names |= {
        "data": Path("data/instruct.parquet"),
        "ledger": Path("data/ledger.parquet"),
        "seeds": Path("data/seeds.parquet"),
    }
    names |= {"scores": Path("eval/scores"), "metrics": Path("reports/metrics"), "curves": Path("reports/plots/train")}
    written = ("markdown", "page", "scores_plot", "funnel_plot", "summary", "distributions")
    stage.main(Namespace(**names, **{name: out / name for name in written}), StageRun(parameters()))
    print(json.dumps({name: (out / name).stat().st_size for name in ("page", "markdown")}))


def make_run(finished: Path, tables: Path, out: Path, rows: int) -> None:
    """OUT/run: a finished run whose ledger, training rows, judgements, responses and rewards are made up.

    Args:
        finished: a repository with the outputs of a run of both generators.
        tables: as from ``write_generated``.
        out: where to.
        rows: generated questions; half of them are kept.
    """
    run = out / "run"
    for name in ("data", "eval", "reports", "dvc.yaml", "dvc.lock"):
        source = finished / name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, run / name)
    filter_rows(tables, out, rows)
    shutil.move(out / "metrics.json", run / "reports" / "metrics" / "filter.json")
    for at, generator in enumerate(GENERATORS):
        path = run / "reports" / "metrics" / "generate" / f"{generator}.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | {"questions": (rows + 1 - at) // 2}))
    for name in ("judged", "responses", "rewards"):
        shutil.rmtree(run / "data" / name)
    (run / "data" / "judged").symlink_to((tables / "judged").resolve())
    for name in ("ledger", "instruct"):
        (run / "data" / f"{name}.parquet").unlink()
    shutil.move(out / "ledger.parquet", run / "data" / "ledger.parquet")
    training_rows = run / "data" / "instruct.parquet"
    if rows > MOST_MADE:
        chosen = scale_repeated.write_instruct(training_rows, out / "filtered.parquet", rows)
        scale_repeated.write_answers(run / "data", chosen, rows)
        return
    kept = read_rows(out / "filtered.parquet", FILTERED)
    write_instruct(training_rows, kept, rows)
    write_answers(run / "data", [place(row["id"], rows) for row in kept], rows)


STAGES: dict[str, Callable[[Path, Path, int], None]] = {
    "filter": filter_rows,
    "reward_select": reward_select,
    "respond": respond,
    "reward": reward,
    "store": store,
    "dvc": dvc,
    "report": report,
}


def measured(command: Sequence[str]) -> dict[str, Any]:
    """Run a command; CPU seconds and peak memory of it and of all processes below it, sampled twice a second."""
    started, peak, cpu = time.time(), 0, {}
    process = psutil.Popen(command, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)})
    while process.poll() is None:
        total = 0
        try:
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            break
        for one in family:
            try:
                total += one.memory_full_info().pss
                times = one.cpu_times()
                cpu[one.pid] = times.user + times.system
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue
        peak = max(peak, total)
        time.sleep(0.5)
    if process.wait():
        raise SystemExit(f"{' '.join(command)}: exit code {process.returncode}")
    return {
        "cpu_s": round(sum(cpu.values()), 1),
        "wall_s": round(time.time() - started, 1),
        "peak_gib": round(peak / 2**30, 2),
        "load": round(os.getloadavg()[0], 1),
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stage", choices=STAGES)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument(
        "--folder", type=Path, required=True, help="for the tables; they are made where they are missing"
    )
    parser.add_argument("--run", type=Path, help="repository of a finished run, for `report`")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    generated = args.stage in ("filter", "report")
    kind, make = ("generated", write_generated) if generated else ("kept", write_kept)
    if args.rows > MOST_MADE:
        make = scale_repeated.write_generated if generated else scale_repeated.write_kept
    tables, out = args.folder / f"{kind}-{args.rows}", args.folder / f"out-{args.stage}-{args.rows}"
    if args.child:
        STAGES[args.stage](tables, out, args.rows)
    else:
        if not tables.exists():
            making = tables.with_suffix(".making")
            make(making, args.rows)
            making.rename(tables)
        shutil.rmtree(out, ignore_errors=True)
        out.mkdir(parents=True)
        if args.stage == "report":
            make_run(args.run, tables, out, args.rows)
        found = measured([sys.executable, __file__, *sys.argv[1:], "--child"])
        shutil.rmtree(out)
        print(json.dumps({"stage": args.stage, "rows": args.rows} | found))
