"""Where something went: a file or a hash through every revision, a piece of text through every step of one."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from scalequest.audit.chain import find_target
from scalequest.audit.history import History
from scalequest.audit.lock import Lock
from scalequest.audit.rows import made_from
from scalequest.audit.tables import Store, Tables
from scalequest.errors import UserError

HASH = re.compile(r"[0-9a-f]{6,32}(\.dir)?")
# The columns of each table that hold text; what a later table copies from an earlier one is counted in both.
TEXT = {
    "seeds": ("question", "solution", "answer"),
    "benchmarks": ("question", "answer"),
    "qpo_questions": ("completion",),
    "preferences": ("question", "completion"),
    "questions": ("completion",),
    "judged": ("completion",),
    "attempts": ("response",),
    "filtered": ("question",),
    "responses": ("response",),
    "instruct": ("question", "response"),
    "samples": ("question", "completion"),
}
# What a row is called, where the table has no column `id`.
NAMES = {"attempts": "problem_id || '#' || sample"}
SHOWN = 3
AROUND = 60  # characters of context on either side


@dataclass(frozen=True)
class Thing:
    """What was asked for: the hashes that stand for it, and how it was found."""

    asked: str
    hashes: frozenset[str]
    found_as: str


def trace_data(history: History, store: Store, lock: Lock, asked: str) -> dict[str, Any]:
    """Every model, at every revision and experiment, that was made from a file or a hash.

    Args:
        history: all locks.
        store: where data are found.
        lock: of the revision in which ``asked`` is looked up, if it is a path.
        asked: an output of the pipeline, a file in one, any other file (by its content), or a hash or its beginning.

    Raises:
        UserError: nothing of that name or content was ever in the pipeline.
    """
    thing = identify(history, store, lock, asked)
    models = [asdict(made) for version, other in history.mentioning(*thing.hashes) for made in made_from(version.label, other, set(thing.hashes))]  # fmt: skip
    places = [
        {"version": version.label, "path": artifact.path, "stage": stage.name, "role": role}
        for version, other in history.mentioning(*thing.hashes)
        for stage in other.stages.values()
        for role, artifacts in (("read by", stage.deps), ("written by", stage.outs))
        for artifact in artifacts
        if artifact.md5 in thing.hashes
    ]
    return {
        "asked": asked,
        "found_as": thing.found_as,
        "hashes": sorted(thing.hashes),
        "places": places,
        "models": models,
    }


def identify(history: History, store: Store, lock: Lock, asked: str) -> Thing:
    """The hashes that stand for a path, a file or a hash."""
    try:
        _, out = find_target(lock, asked)
    except UserError as error:
        unknown = error
    else:
        return _in_output(store, lock, out, asked)
    if HASH.fullmatch(asked):
        return Thing(asked, _hashes_like(history, store, asked), "a hash")
    path = Path(asked)
    if path.is_file():
        value = store.hash(path)
        try:
            return Thing(asked, _hashes_like(history, store, value), f"a file with the hash {value}")
        except UserError as error:
            raise UserError(f"'{asked}': a file that no stage read or wrote as it is; {error}") from None
    raise unknown


def _in_output(store: Store, lock: Lock, out: Any, asked: str) -> Thing:
    name = asked.rstrip("/").removeprefix("./").removeprefix(out.path).lstrip("/")
    if not name:
        return Thing(asked, frozenset([out.md5]), f"output {out.path} of {lock.revision}")
    listing = store.listing(out)
    if listing is not None and name not in listing:
        raise UserError(f"'{asked}': {out.path} of {lock.revision} has no file '{name}'; it has {', '.join(sorted(listing)[:8])}")  # fmt: skip
    return Thing(asked, frozenset([out.md5]), f"a file in output {out.path} of {lock.revision}")


def _hashes_like(history: History, store: Store, beginning: str) -> frozenset[str]:
    """Hashes in any lock that begin so; else of folders that hold a file with such a hash."""
    found: set[str] = set()
    folders: set[str] = set()
    for version in history.versions:
        # `md5: ` precedes every hash of a lock, and nothing else.
        hashes = set(re.findall(r"^\s+md5: '?([0-9a-f]{32}(?:\.dir)?)", version.content.decode(), re.MULTILINE))
        found |= {value for value in hashes if value.startswith(beginning)}
        folders |= {value for value in hashes if value.endswith(".dir")}
    if not found:
        listed = ((value, store.object(value)) for value in folders)
        found = {value for value, path in listed if path.is_file() and f'"md5": "{beginning}'.encode() in path.read_bytes()}  # fmt: skip
    if found:
        return frozenset(found)
    raise UserError(
        f"hash '{beginning}': looked in {len(history.versions)} versions of dvc.lock (all branches, tags and experiments, and the "
        f"workspace) and in the folders that they name, found none"
    )


def find_text(tables: Tables, text: str, ignore_case: bool = False) -> dict[str, Any]:
    """Where a piece of text occurs along the pipeline, as it is written (or in either case).

    Returns:
        ``steps``: for each table how many rows hold it and the first few with their surroundings; ``outcomes``: what became of
        the generated questions that hold it.

    Raises:
        UserError: the text is empty, or the data are not here.
    """
    if not text.strip():
        raise UserError("--contains: the text is empty; expected what to look for, in quotes")
    present = [kind for kind in TEXT if tables.outputs(kind)]
    tables.require(*present, "ledger")
    steps = [found for kind in present for found in _in_table(tables, kind, text, ignore_case)]
    outcomes = {}
    if tables.outputs("ledger"):
        condition = _condition("question", ignore_case)
        rows = tables.query(
            f"SELECT outcome, count(*) AS n FROM {tables.source('ledger')} WHERE {condition} GROUP BY outcome ORDER BY n DESC, outcome",
            text,
        )
        outcomes = {row["outcome"]: row["n"] for row in rows}
    return {"text": text, "ignore_case": ignore_case, "revision": str(tables.lock.revision), "steps": steps, "outcomes": outcomes}  # fmt: skip


def _condition(column: str, ignore_case: bool) -> str:
    # A regular expression that ignores case is faster than two texts in lower case: 0.5 against 0.75 s for 280 MB.
    return f"regexp_matches({column}, regexp_escape($1), 'i')" if ignore_case else f"contains({column}, $1)"


def _in_table(tables: Tables, kind: str, text: str, ignore_case: bool) -> Iterator[dict[str, Any]]:
    """Count and first rows (by id) in each output of a kind; the text is looked for once, in
    DuckDB, without a copy of the hits.
    """
    columns, name = TEXT[kind], NAMES.get(kind, "id")
    where = " OR ".join(_condition(column, ignore_case) for column in columns)
    for stage, out in tables.outputs(kind):
        source = tables.source(kind, stage.name)
        hits = tables.query(f"SELECT count(*) AS n, min({name}, {SHOWN}) AS ids FROM {source} WHERE {where}", text)[0]
        first = []
        if hits["n"]:
            rows = tables.query(
                f"SELECT {name} AS id, {', '.join(columns)} FROM {source} WHERE list_contains($2, {name}) AND ({where}) ORDER BY 1",
                text, hits["ids"],
            )  # fmt: skip
            first = [{"id": row["id"]} | _surroundings(row, columns, text, ignore_case) for row in rows]
        yield {"kind": kind, "stage": stage.name, "path": out.path, "rows": hits["n"], "first": first}


def _surroundings(row: dict[str, Any], columns: tuple[str, ...], text: str, ignore_case: bool) -> dict[str, str]:
    """The text with its surroundings, for each column that holds it."""
    found = {}
    for column in columns:
        value = row[column] or ""
        spot = value.lower().find(text.lower()) if ignore_case else value.find(text)
        if spot >= 0:
            found[column] = value[max(0, spot - AROUND) : spot + len(text) + AROUND]
    return found
