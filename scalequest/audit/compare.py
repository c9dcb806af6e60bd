"""Compare two runs, output by output: same bytes, same rows, weights and scores by how much, and where it begins.

    scalequest compare A [B [C ...]] [--page FILE]

A and B are each a branch, tag, commit or experiment, the folder of another clone, or a `dvc.lock`. B is the workspace by
default. Outputs are compared by what they hold: tables row by row, models tensor by tensor, scores by their standard
errors. Bytes that are neither in DVC's cache nor in a folder are named as not compared.

Exit code 0: equal, at most rounding apart. 1: different.
"""

import argparse
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from hashlib import md5
from pathlib import Path
from typing import Any

import numpy as np

from scalequest.audit.chain import difference
from scalequest.audit.facts import environment_of
from scalequest.audit.lock import LOCK, Artifact, Lock, Stage, parse_lock, read_lock
from scalequest.audit.replay import row_names
from scalequest.audit.repository import WORKSPACE, Repository, Revision
from scalequest.audit.tables import Store
from scalequest.errors import UserError
from scalequest.io import read_whole
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded

# Levels, best first. Everything up to WEIGHTS may be rounding.
BYTES, ROWS, NUMBERS, WEIGHTS, SCORES, DIFFERENT, UNKNOWN, ONE_SIDE = (
    "same bytes", "same rows", "numbers", "weights", "scores", "different", "not compared", "one side only"
)  # fmt: skip
# The largest relative difference that is called rounding: two CPU kinds differ by some 1e-6 after a training.
ROUNDING = 1e-3
# Pages and drawings show what other outputs hold, with the machine and the day.
PAGES = ("report",)
# Numpy's names for the number types of a safetensors file; bfloat16 has none there.
DTYPES = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "I64": "<i8", "I32": "<i4", "I16": "<i2", "I8": "i1", "U8": "u1", "BOOL": "?"}  # fmt: skip


class Side:
    """One of the two runs: its lock, and the bytes behind it.

    Attributes:
        name: as it was asked for.
    """

    def __init__(self, name: str, repository: Repository, lock: Lock, beside: Path | None = None) -> None:
        self.name, self.repository, self.lock, self._beside = name, repository, lock, beside
        self.store = Store(repository)

    @classmethod
    def of(cls, name: str, here: Repository) -> "Side":
        """The run under a name.

        Raises:
            UserError: it is no lock, no clone of the pipeline and no revision.
        """
        path = Path(name)
        if name != WORKSPACE and path.is_file():
            stages = parse_lock(read_whole(path, path.read_bytes), str(path))
            return cls(name, here, Lock(Revision(name, None), stages), path.parent)
        if name != WORKSPACE and path.is_dir() and (path / LOCK).is_file():
            other = Repository(path.resolve())
            if (path / "dvc.yaml").is_file():
                return cls(name, other, read_lock(other, Revision(name, None)))
            return cls(
                name, here, Lock(Revision(name, None), parse_lock((path / LOCK).read_bytes(), str(path / LOCK))), path
            )
        return cls(name, here, read_lock(here, here.revision(name)))

    def files(self, out: Artifact) -> dict[str, Path] | None:
        """The files of an output by their path in it ('' for a file); None where the bytes are not here."""
        try:
            return self.store.files(out, self.lock.revision)
        except UserError:
            return None

    def text(self, out: Artifact) -> str | None:
        """A small text output (metrics, scores, curves), from Git, the cache or beside the lock; None where it is not here."""
        found = self.repository.read(self.lock.revision, out.path)
        if found is not None and md5(found).hexdigest() == out.md5:
            return found.decode()
        if out.md5 in self._kept_beside:
            return self._kept_beside[out.md5].read_text()
        files = self.files(out)
        return files[""].read_text() if files and "" in files else None

    @cached_property
    def edited(self) -> list[str]:
        """Small text outputs in the workspace whose bytes are not those that the lock names, and so are not compared."""
        if self.lock.revision.commit is not None or self._beside:
            return []
        outs = [
            out for stage in self.lock.stages.values() for out in stage.outs if out.path.endswith((".json", ".csv"))
        ]
        found = self.repository.read_all(self.lock.revision, [out.path for out in outs])
        return [out.path for out in outs if out.path in found and md5(found[out.path]).hexdigest() != out.md5]

    @cached_property
    def _kept_beside(self) -> dict[str, Path]:
        files = self._beside.rglob("*") if self._beside else ()
        return {md5(f.read_bytes()).hexdigest(): f for f in files if f.suffix in (".json", ".csv") and f.is_file()}

    def environment(self, stage: Stage) -> list[str]:
        """Packages and machine of a stage's run; empty where they are not recorded."""
        return self._recorded_beside.of(stage.name, stage.given) or environment_of(self.repository, self.lock, stage)

    @cached_property
    def _recorded_beside(self) -> Recorded:
        """What is kept beside a lock, as a kept cell has it."""
        file = self._beside / Path(ENVIRONMENT_FILE).name if self._beside else None
        return Recorded.parse(file.read_bytes() if file and file.is_file() else None)


@dataclass(frozen=True)
class Outcome:
    """How one output compares.

    Attributes:
        stage: that makes it.
        path: of the output.
        level: one of the levels above.
        says: in words.
        apart: relative difference of numbers or weights; for scores in standard errors.
    """

    stage: str
    path: str
    level: str
    says: str
    apart: float = 0.0

    @property
    def is_rounding(self) -> bool:
        """Whether nothing but rounding differs."""
        return self.level in (BYTES, ROWS) or (self.level in (NUMBERS, WEIGHTS) and self.apart <= ROUNDING)


def compare(first: Side, second: Side) -> Iterator[Outcome]:
    """Every output of either run, in the order of the graph."""
    names = [stage.name for stage in first.lock.order()]
    names += [stage.name for stage in second.lock.order() if stage.name not in names]
    for name in names:
        one, two = first.lock.stages.get(name), second.lock.stages.get(name)
        paths = dict.fromkeys(out.path for stage in (one, two) if stage for out in stage.outs)
        for path in paths:
            a, b = (stage.out(path) if stage else None for stage in (one, two))
            if a is None or b is None:
                yield Outcome(name, path, ONE_SIDE, f"only in {second.name if a is None else first.name}")
            elif a.md5 == b.md5:
                yield Outcome(name, path, BYTES, "same bytes")
            else:
                assert one
                yield _outcome(one, (first, a), (second, b))


def _outcome(stage: Stage, one: tuple[Side, Artifact], two: tuple[Side, Artifact]) -> Outcome:
    path = one[1].path
    absent = [side.name for side, out in (one, two) if (side.text(out) if path.endswith((".json", ".csv")) else side.files(out)) is None]  # fmt: skip
    if absent:
        return Outcome(stage.name, path, UNKNOWN, f"other bytes; those of {' and '.join(absent)} are not here")
    if path.endswith((".json", ".csv")):
        texts = [side.text(out) or "" for side, out in (one, two)]
        if path == stage.option("scores"):
            return _scores(stage.name, path, *(json.loads(text) for text in texts))
        values = [json.loads(text) if path.endswith(".json") else text.replace("\n", ",").split(",") for text in texts]
        return _numbers(stage.name, path, *values)
    files = [side.files(out) or {} for side, out in (one, two)]
    if all(name.endswith(".parquet") or path.endswith(".parquet") for side in files for name in side):
        return _tables(stage.name, path, *files)
    if any(name.endswith(".safetensors") for side in files for name in side):
        return _weights(stage.name, path, *files)
    return Outcome(stage.name, path, DIFFERENT, "other bytes")


# ------------------------------------------------------------------------------------------------------ by content


def _apart(a: float, b: float) -> float:
    """Difference relative to the first value, and to 1 where that is larger; not a number equals itself."""
    if math.isnan(a) or math.isnan(b):
        return 0.0 if math.isnan(a) and math.isnan(b) else math.inf
    return abs(a - b) / max(1.0, abs(a))


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None


def _leaves(values: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(values, dict | list):
        for key, value in values.items() if isinstance(values, dict) else enumerate(values):
            yield from _leaves(value, f"{name}.{key}".lstrip("."))
    else:
        yield name, values


def _numbers(stage: str, path: str, one: Any, two: Any) -> Outcome:
    a, b = dict(_leaves(one)), dict(_leaves(two))
    worst, where = 0.0, ""
    for key in dict.fromkeys([*a, *b]):
        x, y = _number(a.get(key)), _number(b.get(key))
        if x is None or y is None:
            apart = 0.0 if a.get(key) == b.get(key) and (key in a) == (key in b) else math.inf
        else:
            apart = _apart(x, y)
        if apart > worst:
            worst, where = apart, key
    if math.isinf(worst):
        return Outcome(stage, path, DIFFERENT, f"{where}: {a.get(where, 'absent')} and {b.get(where, 'absent')}", worst)
    return Outcome(
        stage, path, NUMBERS, f"numbers differ by at most {worst:.1g} ({where or 'in spelling only'})", worst
    )


def _scores(stage: str, path: str, one: dict[str, Any], two: dict[str, Any]) -> Outcome:
    """Each score against its own standard errors; runs share items, so this is an upper estimate of the error."""
    a, b = dict(_leaves(one)), dict(_leaves(two))
    keys = [key for key in a if f"{key}_stderr" in a and f"{key}_stderr" in b and key in b]
    worst, where = 0.0, ""
    for key in keys:
        error = math.hypot(float(a[f"{key}_stderr"]), float(b[f"{key}_stderr"]))
        apart = abs(float(a[key]) - float(b[key])) / error if error else (0.0 if a[key] == b[key] else math.inf)
        if apart > worst:
            worst, where = apart, key
    if not keys:
        return Outcome(stage, path, DIFFERENT, "no score in common", math.inf)
    if not where:
        return Outcome(stage, path, NUMBERS, "every score equal")
    return Outcome(stage, path, SCORES, f"scores within {worst:.1f} standard errors ({where}: {a[where]} and {b[where]})", worst)  # fmt: skip


def _tables(stage: str, path: str, one: dict[str, Path], two: dict[str, Path]) -> Outcome:
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables = [pa.concat_tables([pq.read_table(side[name]) for name in sorted(side)]) for side in (one, two)]
    a, b = tables
    if a.column_names != b.column_names:
        return Outcome(stage, path, DIFFERENT, f"columns {a.column_names} and {b.column_names}", math.inf)
    if a.num_rows == b.num_rows and a.equals(b):
        return Outcome(stage, path, ROWS, f"same {a.num_rows:,} rows, stored otherwise")
    rows = [dict(zip(row_names(table), table.to_pylist(), strict=True)) for table in tables]
    shared = [name for name in rows[0] if name in rows[1]]
    only = [len(side) - len(shared) for side in rows]
    worst, changed = 0.0, []
    for name in shared:
        apart = max(_value_apart(rows[0][name][column], rows[1][name][column]) for column in a.column_names)
        if math.isinf(apart):
            changed.append(name)
        else:
            worst = max(worst, apart)
    if any(only) or changed:
        first = f", the first is {changed[0]}" if changed else ""
        sides = f"; {only[0]:,} and {only[1]:,} rows are on one side only" if any(only) else ""
        return Outcome(stage, path, DIFFERENT, f"text of {len(changed):,} of {len(shared):,} rows differs{first}{sides}", math.inf)  # fmt: skip
    if worst == 0.0:
        return Outcome(stage, path, ROWS, f"same {a.num_rows:,} rows, in another order")
    return Outcome(stage, path, NUMBERS, f"same text in {a.num_rows:,} rows, numbers differ by at most {worst:.1g}", worst)  # fmt: skip


def _value_apart(a: Any, b: Any) -> float:
    if isinstance(a, float) and isinstance(b, float):
        return _apart(a, b)
    return 0.0 if a == b else math.inf


def tensors(file: Path) -> dict[str, np.ndarray]:
    """The tensors of a safetensors file, in float32 or their own type, mapped and not read."""
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        head = json.loads(opened.read(size))
    found = {}
    for name, entry in head.items():
        if name == "__metadata__":
            continue
        start, end = entry["data_offsets"]
        kind = np.dtype("<u2" if entry["dtype"] == "BF16" else DTYPES.get(entry["dtype"], "u1"))
        count = (end - start) // kind.itemsize
        values = np.memmap(file, kind, "r", 8 + size + start, (count,)) if count else np.zeros(0, kind)
        if entry["dtype"] == "BF16":  # the upper half of a float32
            values = (values.astype(np.uint32) << 16).view(np.float32)
        found[name] = values
    return found


def _weights(stage: str, path: str, one: dict[str, Path], two: dict[str, Path]) -> Outcome:
    models = [{k: v for name in sorted(side) if name.endswith(".safetensors") for k, v in tensors(side[name]).items()} for side in (one, two)]  # fmt: skip
    others = [name for name in sorted(one.keys() | two.keys()) if not name.endswith(".safetensors")]
    differing = [name for name in others if name not in one or name not in two or one[name].read_bytes() != two[name].read_bytes()]  # fmt: skip
    if models[0].keys() != models[1].keys():
        return Outcome(stage, path, DIFFERENT, "other tensors", math.inf)
    worst, where = 0.0, ""
    for name, a in models[0].items():
        b = models[1][name]
        if a.shape != b.shape:
            return Outcome(stage, path, DIFFERENT, f"tensor {name}: {a.size:,} and {b.size:,} numbers", math.inf)
        x, y = a.astype(np.float64), b.astype(np.float64)
        norm, apart = float(np.linalg.norm(x)), float(np.linalg.norm(x - y))
        relative = apart / norm if norm else (math.inf if apart else 0.0)
        if relative > worst or math.isnan(relative):
            worst, where = relative if not math.isnan(relative) else math.inf, name
    files = f"; {', '.join(differing)} differs" if differing else ""
    if differing:
        return Outcome(stage, path, DIFFERENT, f"weights differ by at most {worst:.1g} (relative, {where or 'equal'}){files}", worst)  # fmt: skip
    if not where:
        return Outcome(stage, path, ROWS, "same weights, stored otherwise")
    return Outcome(stage, path, WEIGHTS, f"weights differ by at most {worst:.1g} (relative norm, {where})", worst)


# ------------------------------------------------------------------------------------------------------ the answer


def reasons(first: Side, second: Side, name: str) -> list[str]:
    """Why a stage's outputs may differ: what it was given otherwise, and where it ran."""
    lines = given_otherwise(first, second, name)
    one, two = first.lock.stages.get(name), second.lock.stages.get(name)
    if one is None or two is None:
        return lines
    a, b = first.environment(one), second.environment(two)
    if a and b and a != b:
        mine, other = (", ".join(line for line in side if line not in rest) or "fewer packages" for side, rest in ((a, b), (b, a)))  # fmt: skip
        lines.append(f"it ran with {mine} and with {other}")
    if not a or not b:
        lines.append("packages and machine are not recorded on both sides")
    return lines


def given_otherwise(first: Side, second: Side, name: str) -> list[str]:
    """What a stage was given otherwise: parameters, code, and inputs that are not what their maker wrote."""
    one, two = first.lock.stages.get(name), second.lock.stages.get(name)
    if one is None or two is None:
        return [f"only {second.name if one is None else first.name} has the stage"]
    found = difference(one, two, first.lock, second.lock)
    lines = []
    code = [what.removeprefix("code ") for what, _, _ in found.causes if what.startswith("code ")]
    lines += [f"{what} is {a} and {b}" for what, a, b in found.causes if not what.startswith("code ")]
    if code:
        lines.append(f"other code in {', '.join(code[:3])}{f' and {len(code) - 3} more' if len(code) > 3 else ''}")
    made = {out.path for side in (first, second) for _, out in side.lock.outs()}
    stale = [path for path, _, _ in found.inputs if path in made and _written(first, path) == _written(second, path)]
    lines += [f"it read another version of {path} than its maker wrote" for path in stale]
    return lines


def _written(side: Side, path: str) -> str | None:
    return next((out.md5 for _, out in side.lock.makers(path) if out.path == path), None)


def verdict(first: Side, second: Side, outcomes: list[Outcome]) -> str:
    """One plain sentence about the two runs."""
    seen = [found for found in outcomes if found.stage.split("@")[0] not in PAGES]
    differing = [found for found in seen if found.level != BYTES]
    if not differing:
        but = "" if all(found.level == BYTES for found in outcomes) else " but the report's pages"
        return f"Same bytes in all {len(seen if but else outcomes)} outputs{but}."
    unknown = sum(found.level == UNKNOWN for found in differing)
    weights = max((found.apart for found in differing if found.level == WEIGHTS), default=None)
    numbers = max((found.apart for found in differing if found.level == NUMBERS), default=0.0)
    if all(found.is_rounding for found in differing):
        parts = [f"weights differ in rounding (at most {weights:.1g})"] if weights is not None else []
        parts += [f"other numbers by at most {numbers:.1g}"] if numbers else []
        return f"Equal in every question, answer and score{'; ' + ', '.join(parts) if parts else ''}."
    if all(found.is_rounding or found.level == UNKNOWN for found in differing):
        named = next(found for found in differing if found.level == UNKNOWN)
        if why := given_otherwise(first, second, named.stage):
            return f"The runs part at {named.path} (stage {named.stage}): {'; '.join(why)}. {unknown} of {len(seen)} outputs have other bytes that are not here, and could not be compared. Run: dvc pull."  # fmt: skip
        return f"Equal in what could be compared; {unknown} of {len(seen)} outputs have other bytes that are not here, the first is {named.path}. Run: dvc pull."  # fmt: skip
    begin = next(found for found in differing if not found.is_rounding)
    why = reasons(first, second, begin.stage)
    scores = [found.apart for found in differing if found.level == SCORES]
    tail = f"; scores differ by at most {max(scores):.1f} standard errors" if scores else ""
    hidden = f"; {unknown} of them could not be compared, because their bytes are not here" if unknown else ""
    because = "; ".join(why) if why else "nothing that is recorded differs, so the stage does not repeat itself"
    return f"The runs part at {begin.path} (stage {begin.stage}): {because}. {len(differing)} of {len(seen)} outputs differ{tail}{hidden}."  # fmt: skip


def first_difference(outcomes: Sequence[Outcome]) -> Outcome | None:
    """The furthest upstream output with other bytes, pages aside."""
    return next((found for found in outcomes if found.level != BYTES and found.stage.split("@")[0] not in PAGES), None)


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("first", metavar="A", help="revision or experiment, folder of a clone, or a dvc.lock")
    parser.add_argument("second", metavar="B", nargs="?", default=WORKSPACE, help="the same; the workspace by default")
    parser.add_argument("more", metavar="C", nargs="*", help="more runs, each compared with A")
    parser.add_argument("--json", action="store_true", help="the result as JSON; a list for more than two runs")
    parser.add_argument(
        "--page",
        type=Path,
        metavar="FILE",
        help="also write scores, funnels and distributions beside each other as HTML",
    )


def run(args: argparse.Namespace) -> int:
    """Compare, print each output that differs and the verdict; 1 if more than rounding differs."""
    here = Repository.find()
    names = (args.first, args.second, *args.more)
    if twice := [name for name in names if names.count(name) > 1]:
        raise UserError(f"compare: {twice[0]}: named {len(twice)} times. Expected different runs. Name each once.")
    first, *others = (Side.of(name, here) for name in names)
    compared = [(other, list(compare(first, other))) for other in others]
    if args.json:
        facts = [_facts(first, other, outcomes) for other, outcomes in compared]
        print(json.dumps(facts if args.more else facts[0], indent=2, ensure_ascii=False))
    else:
        for side in (first, *others):
            _print_edited(side)
        for other, outcomes in compared:
            _print(first, other, outcomes)
    if args.page:
        from scalequest.report.versus import write_page

        write_page(args.page, first, compared)
    return int(
        not all(
            found.is_rounding
            for _, outcomes in compared
            for found in outcomes
            if found.stage.split("@")[0] not in PAGES
        )
    )


def _facts(first: Side, second: Side, outcomes: list[Outcome]) -> dict[str, Any]:
    begin = first_difference(outcomes)
    return {
        "edited": {side.name: side.edited for side in (first, second) if side.edited},
        "outputs": [asdict(found) | {"apart": None if math.isinf(found.apart) else found.apart} for found in outcomes],
        "verdict": verdict(first, second, outcomes),
        "first": {"path": begin.path, "stage": begin.stage, "why": reasons(first, second, begin.stage)}
        if begin
        else None,
    }


def _print_edited(side: Side) -> None:
    if edited := side.edited:
        print(
            f"{side.name}: compared is what {LOCK} names. Other bytes now: {', '.join(edited[:3])}"
            f"{f' and {len(edited) - 3} more' * (len(edited) > 3)}. `dvc status` shows the stages"
        )


def _print(first: Side, second: Side, outcomes: list[Outcome]) -> None:
    differing = [found for found in outcomes if found.level != BYTES]
    print(
        f"{first.name} and {second.name}: {len(outcomes) - len(differing)} of {len(outcomes)} outputs have the same bytes"
    )
    for found in differing:
        print(f"  {found.path}: {found.says}")
    if begin := first_difference(outcomes):
        print(f"first that differs: {begin.path} (stage {begin.stage})")
        for line in reasons(first, second, begin.stage) or ["nothing that is recorded differs"]:
            print(f"  {line}")
    print(verdict(first, second, outcomes))
