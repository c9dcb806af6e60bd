"""The published data set's tables, one folder each, as ``datasets.load_dataset(FOLDER, NAME)`` reads them.

Rows come from the tables of the lock, in the order of the questions' ids. Only the columns that
TRL's formats have are made here: ``messages``, ``prompt``, ``chosen`` and ``rejected``.
"""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scalequest.audit.lock import PARAMS, parse_yaml
from scalequest.audit.tables import Tables
from scalequest.domains import DOMAINS, WORKED, wording
from scalequest.io import atomic_path
from scalequest.outcomes import KEPT
from scalequest.records import COMPRESSION, TEXT

# Rows in memory at a time.
BATCH = 10_000
MESSAGES = pa.list_(pa.struct([pa.field("role", TEXT), pa.field("content", TEXT)]))


@dataclass(frozen=True)
class Config:
    """A configuration of the data set, as the hub calls it: one table, split ``train``.

    Attributes:
        name: what ``load_dataset`` takes.
        kinds: the tables of the pipeline that it is made of (``scalequest.audit.tables.KINDS``).
        summary: one sentence for the card.
        columns: what each column means.
        query: SQL with the tables' sources filled in by their kinds; None copies the bytes of the one table.
        optional: further tables of the query, and the SQL of an empty one for a run that has none.
    """

    name: str
    kinds: tuple[str, ...]
    summary: str
    columns: dict[str, str]
    query: str | None = None
    optional: Mapping[str, str] = field(default_factory=dict)

    @property
    def path(self) -> str:
        """Its file in the published folder."""
        known = {"default": "data/train.parquet", "ledger": "ledger/ledger.parquet"}
        return known.get(self.name, f"{self.name}/train.parquet")


_ID = "generator/shard/row; `scalequest audit --row ID` prints the row's history"
# `generator/shard/row`: numbers sort as numbers.
_BY_ID = "split_part({0}, '/', 1), try_cast(split_part({0}, '/', 2) AS BIGINT), try_cast(split_part({0}, '/', 3) AS BIGINT), {0}"  # fmt: skip
CONFIGS = (
    Config(
        "default",
        ("instruct",),
        "The training rows: each kept question with the answer that was kept, ready for supervised fine-tuning.",
        {
            "messages": "question and response as a conversation; the user's turn is the prompt that the student was trained on",
            "id": _ID,
            "generator": "which of the tuned generators wrote the question",
            "question": "the problem",
            "response": "the sampled answer that was kept",
            "final_answer": "what the response announces as its answer; checked by no one",
            "reward": "the reward model's logit of the response, higher is better; null in a run without a reward model",
            "agreement": "share of all sampled answers that end in the same final answer",
            "n_candidates": "how many of the sampled answers ended and gave an answer",
        },
        f"SELECT * FROM {{instruct}} ORDER BY {_BY_ID.format('id')}, reward DESC, response",
    ),
    Config(
        "responses",
        ("responses", "filtered", "instruct"),
        "Every sampled answer with its reward, if it has one, kept or not: all candidates of each question.",
        {
            "id": "`question_id#sample`",
            "question_id": _ID,
            "sample": "number of the sample, from 0",
            "question": "the problem",
            "response": "a sampled answer",
            "finish_reason": "`stop`; or `length`, where it was cut",
            "n_tokens": "tokens of the response",
            "reward": "the reward model's logit, higher is better; null where it was not scored",
            "kept": "whether it is the response of a training row",
        },
        f"""SELECT r.id, r.question_id, r.sample, q.question, r.response, r.finish_reason, r.n_tokens, w.reward,
        i.id IS NOT NULL AS kept
        FROM {{responses}} r JOIN {{filtered}} q ON q.id = r.question_id LEFT JOIN {{rewards}} w ON w.id = r.id
        LEFT JOIN (SELECT DISTINCT id, reward, response FROM {{instruct}}) i
        ON i.id = r.question_id AND i.reward IS NOT DISTINCT FROM w.reward AND i.response = r.response ORDER BY {_BY_ID.format("r.question_id")}, r.sample""",
        {"rewards": "(SELECT NULL::VARCHAR AS id, NULL::FLOAT AS reward WHERE false)"},
    ),
    Config(
        "preferences",
        ("preferences",),
        "Pairs of questions that the generators were optimized on: the rewrite is preferred.",
        {
            "id": "generator/shard/row of the question that was rewritten",
            "generator": "which generator wrote it",
            "direction": "what the rewrite was to improve: `solvability` or `difficulty`",
            "prompt": "empty: a generator writes after its chat template's open user turn",
            "chosen": "the rewrite",
            "rejected": "the question as it was generated",
        },
        f"""SELECT id, generator, direction, '' AS prompt, rewrite AS chosen, question AS rejected FROM {{preferences}}
        WHERE verdict = '{KEPT}' ORDER BY {_BY_ID.format("id")}, direction""",
    ),
    Config(
        "ledger",
        ("ledger",),
        "Every generated question with what became of it and why.",
        {
            "id": _ID,
            "generator": "which generator wrote the question",
            "question": "the problem",
            "outcome": f"`{KEPT}`, or the filter that dropped it",
            "matched": "id of the earlier question or the test item that it equals or nearly equals",
            "evidence": "the words or the language behind the outcome",
            "verdict": "the judge's word",
            "difficulty": "the difficulty model's score, higher is harder",
            "min_difficulty": "the generator's cut: what is below was dropped",
        },
    ),
)


def there(tables: Tables) -> list[Config]:
    """The configurations whose tables the lock has; a run without preference pairs has no `preferences`."""
    return [config for config in CONFIGS if all(tables.outputs(kind) for kind in config.kinds)]


def write_configs(tables: Tables, folder: Path) -> list[Config]:
    """Write every configuration that the lock has tables for, and return them.

    Raises:
        UserError: the bytes of a table are not here.
    """
    found = there(tables)
    tables.require(*dict.fromkeys(kind for config in found for kind in (*config.kinds, *config.optional)))
    ask = _prompt(tables)
    for config in found:
        target = folder / config.path
        target.parent.mkdir(parents=True, exist_ok=True)
        if config.query is None:  # a copy and no link: who edits the folder must not reach DVC's cache
            [source] = tables.paths(*config.kinds)
            shutil.copyfile(source, target)
        else:
            sources = {kind: tables.source(kind) for kind in config.kinds}
            sources |= {
                kind: tables.source(kind) if tables.outputs(kind) else empty for kind, empty in config.optional.items()
            }
            sql = config.query.format(**sources)
            _write(target, tables.stream(sql, BATCH), ask if "messages" in config.columns else None)
    return found


def _prompt(tables: Tables) -> Callable[[str], str]:
    """What the student reads for a question; the question itself where the revision's domain is not known."""
    content = tables.store.repository.read(tables.lock.revision, PARAMS)
    params = parse_yaml(content or b"{}", PARAMS)
    domain, form = params.get("domain"), (params.get("evaluate") or {}).get("form")
    if domain not in DOMAINS:
        return str
    return partial(wording(str(domain)).solve_prompt, form=form or WORKED)


def _write(path: Path, reader: pa.RecordBatchReader, ask: Callable[[str], str] | None) -> None:
    """Write the rows of a query as Parquet; with ``ask`` with a first column ``messages``."""
    schema = reader.schema if ask is None else reader.schema.insert(0, pa.field("messages", MESSAGES))
    with atomic_path(path) as temporary, pq.ParquetWriter(temporary, schema, compression=COMPRESSION) as file:
        for batch in reader:
            columns = batch.columns if ask is None else [_conversations(batch, ask), *batch.columns]
            file.write_table(pa.Table.from_arrays(columns, schema=schema))


def _conversations(batch: pa.RecordBatch, ask: Callable[[str], str]) -> pa.Array:
    pairs = zip(batch["question"].to_pylist(), batch["response"].to_pylist(), strict=True)
    turns = [
        [{"role": "user", "content": ask(question)}, {"role": "assistant", "content": response}]
        for question, response in pairs
    ]
    return pa.array(turns, MESSAGES)
