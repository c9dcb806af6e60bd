"""How this run was made, from records beside the results: commit, machine, packages, and the lineage in ``dvc.lock``.

Only the page has it. An equal result on another machine has another record, and report.md the same bytes. On one machine a
second run gives the page's bytes, too: a commit of results changes nothing in the record.
"""

from collections import Counter
from pathlib import Path

from scalequest.audit.lock import LOCK, PARAMS, PIPELINE, Lock, make_lock
from scalequest.audit.repository import Revision
from scalequest.errors import UserError
from scalequest.io import read_whole
from scalequest.report.blocks import Block, Graph, Section, Table, Text, code
from scalequest.report.run import Run
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded
from scalequest.runtime.facts import UNKNOWN, GitError, git, git_facts

MACHINE = ("cpu", "cores", "gpu", "python")


def read_lineage(root: Path) -> Lock | None:
    """The records of ``dvc.lock``; None where there is none that can be read."""
    try:
        lock = read_whole(root / LOCK, (root / LOCK).read_bytes)
        texts = [(root / name).read_bytes() for name in (PIPELINE, PARAMS)]
        return make_lock(Revision("workspace", None), lock, *texts)
    except (OSError, UserError):
        return None


def recorded(root: Path) -> Recorded:
    """Environment of each stage's last run; empty where nothing recorded it. Without this stage's, which has not ended."""
    file = root / ENVIRONMENT_FILE
    known = Recorded.parse(file.read_bytes() if file.is_file() else None)
    return Recorded(known.environments, {name: run for name, run in known.stages.items() if name != "report"})


def source_facts(lock: Lock | None) -> dict[str, str]:
    """The last commit that changed what the stages ran, and whether that has been edited since.

    Not HEAD, which moves with every commit of results and documents.

    Args:
        lock: its stages name the code; without one, HEAD has to do.
    """
    if lock is None:
        return git_facts()
    stages = (stage for stage in lock.stages.values() if stage.base != "report")
    paths = ["--", PARAMS, *sorted({dep.path for stage in stages for dep in stage.deps if dep.path.endswith(".py")})]
    try:
        commit = git("log", "-1", "--format=%H", *paths)
        return {"commit": commit or UNKNOWN, "dirty": str(bool(git("status", "--porcelain", *paths))).lower()}
    except GitError:
        return git_facts()  # which says why


def commit_in_words(facts: dict[str, str]) -> str:
    """Say which source made the report, and whether it was committed."""
    if facts["commit"] == UNKNOWN:
        return "The commit of the source is unknown."
    state = {"true": "with uncommitted changes to code or parameters", "false": "code and parameters committed"}
    return f"Source: commit {code(facts['commit'][:12])}, {state.get(facts['dirty'], 'state unknown')}."


def machine_of(lines: list[str]) -> str:
    """The machine kind among the lines of an environment."""
    facts = dict(line.split(": ", 1) for line in lines if ": " in line)
    return ", ".join(
        f"{key} {facts[key]}" if key in ("cores", "python") else facts[key] for key in MACHINE if key in facts
    )


def level(machines: list[str], lines: list[list[str]]) -> str:
    """Say how far a second run of this run repeats."""
    if not machines:
        return "Repeatability: not known, because no stage recorded its machine."
    if len(machines) > 1:
        return f"Repeatability: the stages ran on {len(machines)} kinds of machines, so no single machine gives these bytes."
    if any(line.startswith("gpu: ") for environment in lines for line in environment):
        return "Repeatability: same data for the same models; on a GPU, trainings give the same distribution, not the same bytes."
    return "Repeatability: the same bytes with the same package lock on the same kind of machine."


def record_in_words(run: Run, root: Path) -> list[str]:
    """Commit, machine and level of repeatability, one sentence each."""
    known = recorded(root)
    lines = [known.environments[entry["environment"]] for stage, entry in known.stages.items()
             if stage in run.metrics and entry["environment"] in known.environments]  # fmt: skip
    machines = [name for name, _ in Counter(filter(None, map(machine_of, lines))).most_common()]
    machine = f"Machine: {'; '.join(map(code, machines))}." if machines else "The machine is not recorded."
    return [commit_in_words(source_facts(read_lineage(root))), machine, level(machines, lines)]


def size_in_words(size: int | None) -> str:
    """Bytes in the unit that fits."""
    if size is None:
        return "–"
    for unit, factor in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= factor:
            return f"{size / factor:.1f} {unit}"
    return f"{size} B"


def direct(above: dict[str, list[str]]) -> dict[str, list[str]]:
    """Names above each without those that are already above one of the others: each line of the drawing says something new."""
    known: dict[str, set[str]] = {}

    def all_above(name: str) -> set[str]:
        if name not in known:
            known[name] = set()  # a loop, which no pipeline has, would end here
            known[name] = {one for other in above.get(name, ()) for one in (other, *all_above(other))}
        return known[name]

    return {
        name: [one for one in ones if not any(one in all_above(other) for other in ones)]
        for name, ones in above.items()
    }


def graph(lock: Lock) -> Graph:
    """The stages with what they are made from; the instances of one stage are one box."""
    sizes: Counter[str] = Counter()
    above: dict[str, dict[str, None]] = {}
    counts: Counter[str] = Counter()
    for stage in lock.order():
        if stage.base == "report":
            continue
        counts[stage.base] += 1
        sizes[stage.base] += sum(out.size or 0 for out in stage.outs)
        makers = (maker.base for dep in stage.deps for maker, _ in lock.makers(dep.path))
        above.setdefault(stage.base, {}).update(dict.fromkeys(name for name in makers if name != stage.base))
    # A box comes after all that it is made from, whatever instance needs which.
    ordered: dict[str, None] = {}

    def visit(name: str) -> None:
        if name not in ordered:
            for other in above.get(name, ()):
                visit(other)
            ordered[name] = None

    for name in above:
        visit(name)
    remarks = {
        name: (f"{counts[name]} × · " if counts[name] > 1 else "") + size_in_words(sizes[name]) for name in ordered
    }
    lines = direct({name: list(ones) for name, ones in above.items()})
    title = "From the models and seeds to the scores; what a longer way shows already has no line"
    return Graph(title, [(name, remarks[name], lines[name]) for name in ordered])


def lineage(run: Run, root: Path) -> Section:
    """Show what each stage read from which stage, and what it wrote, with hashes."""
    lock = read_lineage(root)
    if lock is None or not lock.stages:
        return Section("Lineage", [Text("There is no `dvc.lock`: the stages were not run by DVC.")], page_only=True)
    rows = []
    for stage in lock.order():
        if stage.base == "report":
            continue
        makers = dict.fromkeys(maker.name for dep in stage.deps for maker, _ in lock.makers(dep.path))
        outs = [out for out in stage.outs if not out.path.endswith((".json", ".csv"))] or list(stage.outs)
        first = outs[0] if outs else None
        rows.append(
            [
                f"`{stage.name}`",
                " ".join(code(name) for name in makers) or "outside",
                " ".join(code(out.path) for out in outs),
                code(first.md5[:10]) if first else "–",
                size_in_words(first.size) if first else "–",
            ]
        )
    known = recorded(root)
    packages = [[code(name), ", ".join(lines), str(sum(e["environment"] == name for e in known.stages.values()))]
                for name, lines in known.environments.items()]  # fmt: skip
    head = ["stage", "made from", "wrote", "hash of the first", "size"]
    blocks: list[Block] = [
        Text(
            "Each stage after those that it needs, from `dvc.lock`. `scalequest audit PATH` follows one output to its sources."
        ),
        graph(lock),
        Table("Stages and what they wrote", head, rows, "llllr", folded=True),
        Table("Environments", ["environment", "packages and machine", "stages"], packages, "llr", folded=True),
    ]
    return Section("Lineage", blocks, page_only=True)
