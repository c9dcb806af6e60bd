"""Show what a run is doing, from another terminal: stages done, running and waiting, rows, speed, time left, GPUs.

    scalequest status [--watch SECONDS] [--json]

A stage counts as done if ``dvc.lock`` has it with the parameters, code and inputs that are here now. Hashes of data are taken
from ``dvc.lock``, so this costs seconds at any size; ``dvc status`` also hashes what changed by hand. Running stages leave a
small file in ``.work/running``. It never changes anything and waits for no lock.
"""

import argparse
import json
import math
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scalequest.audit.lock import LOCK, PARAMS, flatten, make_lock, unused_stages
from scalequest.audit.repository import WORKSPACE, Revision
from scalequest.errors import UserError
from scalequest.io import read_json, read_whole
from scalequest.params import read_yaml
from scalequest.runtime.progress import RUNNING, clock

QUERY = "index,name,utilization.gpu,memory.used,memory.total"
# Names shown of stages that wait.
SHOWN = 8


def finished_stages(root: Path = Path()) -> tuple[list[str], set[str]]:
    """All stages of the run in the pipeline's order, and those that are done."""
    return read_whole(root / LOCK, lambda: _finished_stages(root))


def _finished_stages(root: Path) -> tuple[list[str], set[str]]:
    import networkx
    from dvc.repo import Repo

    if (root / LOCK).is_file():
        make_lock(
            Revision(WORKSPACE, None), (root / LOCK).read_bytes(), b"{}", b""
        )  # for DVC a damaged lock is an empty one
    params = root / PARAMS
    unused = unused_stages(flatten(read_yaml(params)) if params.is_file() else {})
    with Repo(str(root)) as repo:
        graph = repo.index.graph.copy()
        graph.remove_nodes_from([stage for stage in graph if stage.addressing in unused])
        order = list(reversed(list(networkx.topological_sort(graph))))
        made = {out.def_path: out.hash_info.value for stage in order for out in stage.outs if out.hash_info}
        done: set[str] = set()
        for stage in order:
            needs_done = all(needed.addressing in done for needed in graph.successors(stage))
            if needs_done and _as_locked(stage, made):
                done.add(stage.addressing)
        return [stage.addressing for stage in order], done


def _as_locked(stage: Any, made: dict[str, str]) -> bool:
    """Whether ``dvc.lock`` has this stage as it is now, given that what it needs is done."""
    if stage.cmd_changed or not stage.outs or not all(out.hash_info and out.exists for out in stage.outs):
        return False
    for dep in stage.deps:
        if not hasattr(dep, "params") and dep.def_path in made:
            if not dep.hash_info or dep.hash_info.value != made[dep.def_path]:
                return False
        elif dep.workspace_status():
            return False
    return True


def notices(root: Path = Path()) -> Iterator[dict[str, Any]]:
    """What running stages have written, the longest running first, with ``alive``: whether the process is still there."""
    import psutil

    found = []
    for path in (root / RUNNING).glob("*.json"):
        try:
            facts = read_json(path)
            _ = facts["stage"] + facts["folder"]  # shown, and so expected to be text
            process = psutil.Process(int(facts["pid"]))
            # Another process may have got the number since.
            alive = process.create_time() <= facts["started"] + 1 and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            alive = False
        except (OSError, ValueError, KeyError, TypeError):  # written by a version that is not ours
            continue
        found.append(facts | {"alive": alive and "ended" not in facts})
    yield from sorted(found, key=lambda facts: facts["started"])


def speed(facts: dict[str, Any], now: float) -> dict[str, float]:
    """Rows and tokens per second, and seconds left, of a stage that counts its rows; empty before its first shard."""
    rows = facts.get("done", 0) - facts.get("resumed", 0)
    if rows <= 0 or not facts.get("seconds"):
        return {}
    per_second = rows / facts["seconds"]
    since = max(0.0, now - facts.get("written", now))  # of the shard that is under way, part of the time has passed
    left = max(0.0, (facts["total"] - facts["done"]) / per_second - since)
    return {"rows_per_s": per_second, "tokens_per_s": facts["tokens"] / facts["seconds"], "left_s": left}


def gpus() -> list[dict[str, str]]:
    """Use and memory of each GPU by the driver's tool; empty where there is none."""
    if not shutil.which("nvidia-smi"):
        return []
    command = ["nvidia-smi", f"--query-gpu={QUERY}", "--format=csv,noheader,nounits"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    rows = [[cell.strip() for cell in line.split(",")] for line in result.stdout.splitlines()]
    return [dict(zip(QUERY.split(","), row, strict=True)) for row in rows if len(row) == QUERY.count(",") + 1]


def running_line(facts: dict[str, Any], now: float) -> str:
    """One stage for the terminal."""
    parts = [f"  {facts['stage']:<28}"]
    if facts.get("total"):
        parts.append(f"{facts['done']:,}/{facts['total']:,} rows ({100 * facts['done'] / facts['total']:.0f} %)")
        if rate := speed(facts, now):
            parts.append(
                f"{rate['rows_per_s']:,.1f} rows/s, {rate['tokens_per_s']:,.0f} tokens/s, {clock(rate['left_s'])} left"
            )
    parts.append(f"since {clock(now - facts['started'])}")
    if facts.get("gpus"):
        parts.append(f"GPU {facts['gpus']}")
    parts.append(f"process {facts['pid']}")
    if Path(facts["folder"]) != Path.cwd():
        parts.append(f"in {facts['folder']}")
    return "  ".join(parts)


def status(root: Path = Path()) -> dict[str, Any]:
    """Everything that is shown."""
    order, done = finished_stages(root)
    found = list(notices(root))
    running = [facts for facts in found if facts["alive"]]
    busy = {facts["stage"] for facts in running}
    now = time.time()
    return {
        "stages": len(order),
        "done": [name for name in order if name in done and name not in busy],
        "running": [facts | speed(facts, now) for facts in running],
        "waiting": [name for name in order if name not in done and name not in busy],
        "ended": [facts for facts in found if not facts["alive"] and facts["stage"] not in busy | done],
        "gpus": gpus(),
    }


def in_words(found: dict[str, Any]) -> str:
    """``status`` for a terminal."""
    waiting, running, now = found["waiting"], found["running"], time.time()
    lines = [f"{found['stages']} stages: {len(found['done'])} done, {len(running)} running, {len(waiting)} waiting"]
    lines += [running_line(facts, now) for facts in running]
    for facts in found["ended"]:
        rows = f", {facts['done']:,}/{facts['total']:,} rows" if facts.get("total") else ""
        lines.append(f"  {facts['stage']}: {facts.get('ended') or 'killed'}{rows}; run again to resume")
    if waiting:
        more = f" and {len(waiting) - SHOWN} more" if len(waiting) > SHOWN else ""
        lines.append(f"{'waiting' if running else 'to do'}: {', '.join(waiting[:SHOWN])}{more}")
    if not running:
        lines.append("nothing is running. " + ("Run: dvc repro" if waiting else "Everything is up to date."))
    lines += [
        f"GPU {gpu['index']}  {gpu['name']}  {gpu['utilization.gpu']} %  {gpu['memory.used']} of {gpu['memory.total']} MiB"
        for gpu in found["gpus"]
    ]
    return "\n".join(lines)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest status``."""
    parser.add_argument("--watch", type=float, metavar="SECONDS", help="show it again and again; Ctrl-C ends it")
    parser.add_argument("--json", action="store_true", help="for programs")


def run(args: argparse.Namespace) -> int:
    """Print the status, once or until Ctrl-C."""
    if args.watch is not None and not 1 <= args.watch < math.inf:
        raise UserError(f"--watch {args.watch:g}: expected 1 second or more. Correct it.")
    try:
        while True:
            found = status()
            print(json.dumps(found) if args.json else in_words(found), flush=True)
            if args.watch is None:
                return 0
            time.sleep(args.watch)
            if not args.json:
                print(flush=True)
    except KeyboardInterrupt:
        if args.watch is None:
            raise
        return 0
