"""Compare every claim of dvc.lock with the files; exit code 1 if a link is broken.

    scalequest verify [CHECK ...] [--rev REV] [--replay 1%|SHARDS [--seed N]]
    scalequest verify --key PUBLIC_KEY [FOLDER ...]

    stages   every stage has run, with its revision's parameters, code and package lock, on what the stages before it wrote
             last; local models and data files still have the bytes that the parameters pin
    hashes   every output in the cache, the workspace and Git has the bytes that the lock names
    counts   no row is lost between one table and the next, and the metrics have the numbers of the data
    rows     every training row leads back over its response, the ledger and its generator to a fetched model

    --replay draws shards by chance, runs the stages' code for them again on this machine, and compares the rows. It finds
             what the four checks cannot: rows that were changed together with lock, counts and hashes

    --key    checks the signatures of what `scalequest publish --sign` wrote (by default in hub/), anywhere, without a repository

Checks run in the pipeline's order. The first broken link printed is the one furthest upstream; the others may follow
from it.
"""

import argparse
import json
import secrets
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from scalequest.audit.facts import environment_of
from scalequest.audit.links import CHECKS, Broken, Check, verify
from scalequest.audit.lock import Lock, read_lock
from scalequest.audit.repository import WORKSPACE, Repository, nearest
from scalequest.audit.show import environments
from scalequest.audit.tables import Store
from scalequest.audit.takeover import taken_over_lines
from scalequest.errors import UserError

# Broken links that are printed after the first.
SHOWN = 20


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("checks", nargs="*", metavar="CHECK", help=f"of {', '.join(CHECKS)}; all of them by default")
    parser.add_argument("--rev", default=WORKSPACE, help="branch, tag, commit or experiment; the workspace by default")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.add_argument(
        "--replay", metavar="AMOUNT", help="also run this part again: a share (1%%) or a number of shards (3)"
    )
    parser.add_argument(
        "--key", type=Path, metavar="PUBLIC_KEY", help="check signatures with this key, of folders instead of checks"
    )
    parser.add_argument("--seed", type=int, help="with --replay: draw the same shards again; by default by chance")


def replayed(repository: Repository, lock: Lock, amount: str, seed: int | None, say: Callable[[str], None]) -> Check:
    """Run a random part again, and return what differs as broken links; the plan and its price are said first."""
    from scalequest.audit import replay

    if lock.revision.commit is not None:
        raise UserError(f"--replay with --rev {lock.revision.name}: the code that runs is the workspace's. Run: git checkout {lock.revision.name} && dvc pull, then without --rev")  # fmt: skip
    with tempfile.TemporaryDirectory(prefix="scalequest-replay-") as folder:
        job = replay.Replay(repository, lock, Store(repository), Path(folder))
        plan = job.plan(amount, secrets.randbelow(2**31) if seed is None else seed)
        for line in replay.plan_lines(plan):
            say(line)
        started, broken, rows, names = time.monotonic(), [], 0, []
        for found in job.compare(plan):
            names.append(found.stage)
            rows += found.rows
            apart = f", numbers within {found.largest:.1g}" if found.largest else ""
            say(f"  {found.stage}, {found.what}: {found.rows:,} rows {'DIFFER' if found.differs else f'equal{apart}'}")
            broken += [Broken(f"stage {found.stage}, run again", f"{line}; run: dvc repro -f -s {found.stage}") for line in found.differs]  # fmt: skip
        say(f"took {time.monotonic() - started:,.0f} s. {replay.chance_line(plan)}")
        if broken and (other := replay.other_machine(repository, lock, names)):
            say(f"This machine is another ({other}): a sampled token may turn on rounding there, many rows do not.")
        for name, why in plan.skipped.items():
            if not why.startswith("not replayed"):
                say(f"  not run again: {name}: {why}")
    return Check("replay", rows, tuple(broken))


def run(args: argparse.Namespace) -> int:
    """Check, print each group, and return 1 if a link is broken."""
    if args.key is not None:
        from scalequest.publish.sign import verify_signatures

        if args.replay is not None or args.seed is not None or args.rev != WORKSPACE:
            raise UserError("verify --key: checks published folders, which have no --rev, --replay and --seed. Expected --key KEY.pub FOLDER alone. Run the other checks in the repository")  # fmt: skip
        return report(verify_signatures([Path(name) for name in args.checks or ["hub"]], args.key), args.json, "what was signed")  # fmt: skip
    if unknown := [name for name in args.checks if name not in CHECKS]:
        raise UserError(f"verify: no check '{unknown[0]}'{nearest(unknown[0], CHECKS)}")
    repository = Repository.find()
    lock = read_lock(repository, repository.revision(args.rev))
    if args.replay is not None:
        from scalequest.audit.replay import wanted_units

        wanted_units(args.replay, 1)
    if args.seed is not None and args.replay is None:
        raise UserError("--seed: goes with --replay AMOUNT")
    checks = list(verify(repository, lock, args.checks or list(CHECKS)))
    if args.replay is not None:
        stream = sys.stderr if args.json else sys.stdout
        checks.append(
            replayed(repository, lock, args.replay, args.seed, lambda line: print(line, file=stream, flush=True))
        )
    facts = [] if args.json else [*taken_over_lines(repository, lock), *environments({s.name: environment_of(repository, lock, s) for s in lock.stages.values()})]  # fmt: skip
    return report(checks, args.json, str(lock.revision), facts)


def report(checks: list[Check], as_json: bool, of: str, facts: Sequence[str] = ()) -> int:
    """Print groups of checks, other ``facts``, and the broken links of what was checked; 1 if there are any."""
    broken = [link for check in checks for link in check.broken]
    if as_json:
        print(json.dumps([asdict(check) for check in checks], indent=2, ensure_ascii=False))
        return bool(broken)
    for check in checks:
        print(f"{check.name}: {check.links:,} links, {f'{len(check.broken)} broken' if check.broken else 'all hold'}")
    print(*facts, sep="\n", end="\n" if facts else "")
    if broken:
        print(f"\nfirst broken link of {of}:\n  {broken[0]}")
        if more := broken[1:]:
            print("\nand after it:", *(f"  {link}" for link in more[:SHOWN]), sep="\n")
            if len(more) > SHOWN:
                print(f"  ... and {len(more) - SHOWN} more (--json has all)")
    return bool(broken)
