"""One row's life: who wrote it, every filter's word, all answers with their rewards, and every model that was trained on it."""

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from scalequest.audit.chain import MODELS, downstream
from scalequest.audit.history import History
from scalequest.audit.lock import Artifact, Lock, Stage
from scalequest.audit.repository import nearest
from scalequest.audit.tables import Store, Tables
from scalequest.errors import UserError

# generator/shard/row, and #sample for one response.
ROW_ID = re.compile(r"([^/]+)/(\d+)/(\d+)(?:#(\d+))?")
# The tables that a generated question passes through.
LIFE = ("questions", "screened", "judged", "difficulty", "ledger", "filtered", "responses", "rewards", "instruct")


@dataclass(frozen=True)
class Made:
    """A model, or other output, that something is in.

    Attributes:
        version: where in history: names, commit and date.
        path: of the output.
        md5: its hash.
        way: what was read first, and so on to the output itself, as paths.
        direct: whether the stage that made it read the thing itself.
        row: of a training row: "same" text under the same id, or "other response" to the same question.
    """

    version: str
    path: str
    md5: str
    way: tuple[str, ...]
    direct: bool
    row: str = ""


def made_from(version: str, lock: Lock, hashes: set[str], row: str = "") -> Iterator[Made]:
    """The models of one lock that were made from any of these hashes."""
    for path, way in downstream(lock, hashes).items():
        if path.startswith(MODELS):
            yield Made(version, path, way[-1].md5, tuple(a.path for a in way), len(way) == 2, row)


def life(tables: Tables, history: History, row_id: str) -> dict[str, Any]:
    """Everything that is known of one generated question.

    Returns:
        ``id``, ``revision``, then one entry a step that the question reached: ``generated``, ``screen``, ``judge``,
        ``difficulty``, ``filter``, ``responses``, ``training_row``, and ``models`` trained on it in any revision.

    Raises:
        UserError: no such id (the nearest is named), or the data are not here.
    """
    match = ROW_ID.fullmatch(row_id)
    lock = tables.lock
    # Questions that a user brings to `respond` are in no table before it.
    brought = [stage for stage, _ in tables.outputs("filtered") if stage.base == "own_filtered"]
    made = [*brought, *(stage for stage, _ in tables.outputs("questions"))]
    generators = {stage.option("generator") or stage.name: stage for stage in made}
    if not match or match[1] not in generators:
        raise UserError(_unknown(row_id, generators, bool(match), lock))
    tables.require(*LIFE)
    question_id = row_id.split("#", 1)[0]
    stage = generators[match[1]]
    kind = "filtered" if stage in brought else "questions"
    found = tables.query(f"SELECT * FROM {tables.source(kind, stage.name)} WHERE id = ?", question_id)
    if not found:
        raise UserError(_no_row(tables, stage, kind, question_id, match))
    generated = found[0]
    generated.pop("generator"), generated.pop("id")
    model = next((d for d in stage.deps if d.path == stage.option("model")), None)
    result: dict[str, Any] = {
        "id": question_id,
        "revision": str(lock.revision),
        "generated": {"stage": stage.name, "generator": match[1], "model": _named(model), "shard": int(match[2]), "row": int(match[3])} | generated,
    }  # fmt: skip
    if stage.base.startswith("own_"):
        # The number in the id is the row's in the file.
        key = f"{stage.base.replace('_', '.', 1)}.{match[1]}."
        result["generated"]["given"] = {name.removeprefix(key): v for name, v in _settings(stage.params, key).items()}
    if kind == "questions":
        result |= _verdicts(tables, question_id)
    result |= _answers(tables, question_id)
    kept = (result.get("training_row") or {}).get("response")
    models, unread = trained_on(history, tables.store, question_id, generated["question"], kept)
    result["models"] = [asdict(made) for made in models]
    result["not_looked_at"] = unread
    return result


def _named(artifact: Artifact | None) -> dict[str, str] | None:
    return {"path": artifact.path, "md5": artifact.md5} if artifact else None


def _all(tables: Tables, kind: str, question_id: str) -> list[dict[str, Any]]:
    return tables.query(f"SELECT * FROM {tables.source(kind)} WHERE id = ?", question_id)


def _one(tables: Tables, kind: str, question_id: str) -> dict[str, Any] | None:
    rows = _all(tables, kind, question_id)
    return rows[0] if rows else None


def _verdicts(tables: Tables, question_id: str) -> dict[str, Any]:
    """Each filter's word, with the thresholds that it was judged by."""
    found: dict[str, Any] = {}
    params = {stage.base: stage.params for stage in tables.lock.stages.values()}
    if not tables.outputs("screened"):
        return found
    if screened := _one(tables, "screened", question_id):
        found["screen"] = {k: screened[k] for k in ("verdict", "matched", "evidence")}
        found["screen"]["settings"] = _settings(params["screen"], "screen.")
        if "duplicate" in screened["verdict"] and (twin := _one(tables, "screened", screened["matched"])):
            found["screen"]["matched_question"] = twin["question"]
        if screened["verdict"] == "contaminated" and (item := _one(tables, "benchmarks", screened["matched"])):
            found["screen"]["matched_question"] = item["question"]
    if tables.outputs("judged") and (judged := _one(tables, "judged", question_id)):
        found["judge"] = {k: judged[k] for k in ("verdict", "completion", "finish_reason")}
        found["judge"]["model"] = _model(tables, "judged")
    if tables.outputs("difficulty") and (scored := _one(tables, "difficulty", question_id)):
        found["difficulty"] = {"score": scored["score"], "model": _model(tables, "difficulty")}
    if tables.outputs("ledger") and (entry := _one(tables, "ledger", question_id)):
        found["filter"] = {k: entry[k] for k in ("outcome", "verdict", "difficulty", "min_difficulty")}
        found["filter"]["settings"] = _settings(params["filter"], "filter.")
    return found


def _settings(params: dict[str, Any], prefix: str) -> dict[str, Any]:
    return {key: value for key, value in params.items() if key.startswith(prefix)}


def _model(tables: Tables, kind: str) -> dict[str, str] | None:
    stage, _ = tables.outputs(kind)[0]
    return _named(next((dep for dep in stage.deps if dep.path == stage.option("model")), None))


def _answers(tables: Tables, question_id: str) -> dict[str, Any]:
    """All responses with their rewards, and the training row if one was kept."""
    if not tables.outputs("responses"):
        return {}
    responses = tables.query(
        f"SELECT sample, finish_reason, n_tokens, response FROM {tables.source('responses')} WHERE question_id = ? ORDER BY sample",
        question_id,
    )
    if not responses:
        return {}
    rewards: dict[int, float] = {}
    if tables.outputs("rewards"):
        rows = tables.query(f"SELECT sample, reward FROM {tables.source('rewards')} WHERE question_id = ?", question_id)
        rewards = {row["sample"]: row["reward"] for row in rows}
    trained = _all(tables, "instruct", question_id) if tables.outputs("instruct") else []
    kept = trained[0] if trained else None
    for row in responses:
        row["reward"] = rewards.get(row["sample"])
    for row in responses if kept else ():
        row["kept"] = False
    for one in trained:
        # The best reward among equal texts, the lowest sample among equals: the rule of reward_select.
        same = [row for row in responses if row["response"] == one["response"] and row["reward"] == one["reward"]]
        if same:
            same[0]["kept"] = True
    settings = next((s.params for s in tables.lock.stages.values() if s.base == "reward_select"), {})
    return {
        "responses": {"model": _model(tables, "responses"), "reward_model": _model(tables, "rewards") if rewards else None, "rows": responses},
        "training_row": ({k: kept[k] for k in ("response", "final_answer", "reward", "agreement", "n_candidates")} if kept else None),
        "selection": _settings(settings, "reward_select."),
    }  # fmt: skip


def trained_on(
    history: History, store: Store, question_id: str, question: str, response: str | None
) -> tuple[list[Made], list[str]]:
    """Models of every revision and experiment whose training rows hold a question.

    An id is a place, not a text: under another model the same id holds another question. So the text is compared.

    Args:
        history: all locks.
        store: where data are found.
        question_id: the row's id.
        question: its text.
        response: the one that was kept in the revision that was asked for; None where none was.

    Returns:
        The models, and the versions that could not be looked at with the reason.
    """
    models: list[Made] = []
    unread: list[str] = []
    found: dict[str, str] = {}  # hash of training rows to what they hold: "same", "other response" or nothing
    for version in history.versions:
        lock = history.lock(version)
        if lock is None:
            continue  # history.unread says why
        tables = Tables(lock, store)
        for _, out in tables.outputs("instruct"):
            if out.md5 not in found:
                found[out.md5] = ""
                try:
                    found[out.md5] = _held(tables, question_id, question, response)
                except UserError as error:
                    unread.append(f"{version.label}: {error}")
            if found[out.md5]:
                models += made_from(version.label, lock, {out.md5}, found[out.md5])
    return models, unread


def _held(tables: Tables, question_id: str, question: str, response: str | None) -> str:
    """Whether training rows hold a question: with this response ("same"), with an "other response", or not ("")."""
    source = tables.source("instruct")
    rows = tables.query(f"SELECT response FROM {source} WHERE id = ? AND question = ?", question_id, question)
    if not rows:
        return ""
    return "same" if response is None or response in {row["response"] for row in rows} else "other response"


def _unknown(row_id: str, generators: dict[str, Stage], formed: bool, lock: Lock) -> str:
    names = list(generators)
    if not formed:
        return (
            f"row '{row_id}': expected GENERATOR/SHARD/ROW, as in {(names or ['sums'])[0]}/0/12 (ids of generated questions; "
            f"generators of {lock.revision}: {', '.join(names) or 'none has run'})"
        )
    generator = row_id.split("/", 1)[0]
    return f"row '{row_id}': {lock.revision} has no generator '{generator}'{nearest(generator, names)}"


def _no_row(tables: Tables, stage: Stage, kind: str, question_id: str, match: re.Match[str]) -> str:
    source = tables.source(kind, stage.name)
    generator, shard, row = match[1], int(match[2]), int(match[3])
    summary = tables.query(
        f"SELECT count(*) AS n, max(split_part(id, '/', 2)::INT) AS shard, "
        f"max(CASE WHEN split_part(id, '/', 2)::INT = ? THEN split_part(id, '/', 3)::INT END) AS row FROM {source}", shard,
    )[0]  # fmt: skip
    if summary["row"] is None:
        near = f"{generator}/{summary['shard']}/{row}"
        why = f"shards go from 0 to {summary['shard']}"
    else:
        near = f"{generator}/{shard}/{min(row, summary['row'])}"
        why = f"rows of shard {shard} go from 0 to {summary['row']}"
    out = tables.outputs(kind)
    path = next(o.path for s, o in out if s.name == stage.name)
    return (
        f"row '{question_id}': not among the {summary['n']:,} questions in {path} of {tables.lock.revision} ({why}). "
        f"Did you mean {near}?"
    )
