"""Trace what an output was made from, and which models something ended up in.

    scalequest audit PATH|HASH [--rev REV]     the chain of an output: data, models, parameters, code and scores
    scalequest audit diff A B PATH             the first difference, upstream, between two revisions of an output
    scalequest audit --row GENERATOR/SHARD/ROW the path of one generated question, and every model trained on it
    scalequest audit --data FILE|HASH          every model, at any revision or experiment, that was made from it
    scalequest audit --contains TEXT           where a piece of text occurs along the pipeline

A revision is a branch, a tag, a commit, a DVC experiment (applied or not), or `workspace`. The audit only reads Git,
dvc.lock and the data. It runs nothing and checks nothing out.
"""

import argparse
import json
import sys
from typing import Any

from scalequest.audit.chain import Chain
from scalequest.audit.history import History
from scalequest.audit.lock import Lock, read_lock
from scalequest.audit.repository import WORKSPACE, Repository
from scalequest.audit.search import HASH
from scalequest.audit.tables import Store, Tables
from scalequest.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("what", nargs="*", metavar="PATH", help="an output or its hash; or: diff A B PATH")
    parser.add_argument("--rev", help=f"branch, tag, commit, experiment or '{WORKSPACE}' (the default)")
    question = parser.add_mutually_exclusive_group()
    question.add_argument("--row", metavar="ID", help="one generated question: GENERATOR/SHARD/ROW")
    question.add_argument("--data", metavar="FILE", help="a file, a folder or a hash")
    question.add_argument("--contains", metavar="TEXT", help="a piece of text")
    parser.add_argument("--ignore-case", action="store_true", help="with --contains: upper and lower case are the same")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print everything as JSON")
    form.add_argument("--mermaid", action="store_true", help="the chain of PATH as a Mermaid drawing")
    form.add_argument(
        "--openlineage", action="store_true", help="the chain of PATH as OpenLineage events, one per line"
    )


def run(args: argparse.Namespace) -> int:
    """Answer, print, and return the exit code."""
    from scalequest.audit import show

    history = History(Repository.find())
    facts, text = answer(args, history)
    facts["not_looked_at"] = [*facts.get("not_looked_at", []), *history.unread]
    if args.openlineage:
        from scalequest.audit import lineage

        when = lineage.event_time(history.repository, facts["revision"]["commit"])
        for event in lineage.events(facts, when, lineage.namespace_of(history.repository)):
            print(json.dumps(event, ensure_ascii=False))
        return 0
    if args.json:
        print(json.dumps(facts, indent=2, ensure_ascii=False, default=str))
    else:
        print(show.chain_mermaid(facts) if args.mermaid else text(facts))
        for line in facts["not_looked_at"]:
            print(f"not looked at: {line}", file=sys.stderr)
    return 0


def answer(args: argparse.Namespace, history: History) -> tuple[dict[str, Any], Any]:
    """The facts that were asked for, and the function that makes text of them.

    Raises:
        UserError: the question is not one of the five, or cannot be answered.
    """
    from scalequest.audit import facts, rows, search, show

    asked = [option for option in ("row", "data", "contains") if getattr(args, option) is not None]
    if bool(args.what) == bool(asked):
        raise UserError("audit: expected one of PATH, diff A B PATH, --row ID, --data FILE, --contains TEXT; see: scalequest audit --help")  # fmt: skip
    drawing = "--mermaid" if args.mermaid else "--openlineage" if args.openlineage else ""
    if drawing and (asked or args.what[0] == "diff"):
        raise UserError(f"{drawing}: shows the chain of a PATH; for other answers take --json")
    if args.ignore_case and args.contains is None:
        raise UserError("--ignore-case: goes with --contains TEXT")
    repository, store = history.repository, Store(history.repository)
    if args.what and args.what[0] == "diff":
        if len(args.what) != 4 or args.rev:
            raise UserError("audit diff: expected two revisions and a path: scalequest audit diff main my-experiment PATH")  # fmt: skip
        chains = [Chain(repository, history, _lock(repository, name), args.what[3]) for name in args.what[1:3]]
        return facts.diff_facts(*chains), show.diff_text
    if len(args.what) > 1:
        raise UserError(f"audit: one PATH expected, got {len(args.what)}: {' '.join(args.what)}")
    lock = _lock(repository, args.rev or WORKSPACE)
    if args.row is not None:
        return rows.life(Tables(lock, store), history, args.row), show.row_text
    if args.data is not None:
        return search.trace_data(history, store, lock, args.data), show.data_text
    if args.contains is not None:
        return search.find_text(Tables(lock, store), args.contains, args.ignore_case), show.contains_text
    chain = _chain(repository, history, lock, args.what[0], args.rev is not None)
    return facts.chain_facts(chain, Tables(chain.lock, store)), show.chain_text


def _lock(repository: Repository, name: str) -> Lock:
    return read_lock(repository, repository.revision(name))


def _chain(repository: Repository, history: History, lock: Lock, what: str, rev_given: bool) -> Chain:
    """The chain of a path in ``lock``; of a hash in ``lock``, or without ``--rev`` in the newest version that has it.

    The hash is what an MLflow run carries, so that a run leads here without its repository's state of that day.
    """
    if not HASH.fullmatch(what) or lock.makers(what):
        return Chain(repository, history, lock, what)
    places = [(lock, out.path) for _, out in lock.outs() if out.md5.startswith(what)]
    if not places and not rev_given:
        places = [
            (other, out.path)
            for _, other in history.mentioning(what)
            for _, out in other.outs()
            if out.md5.startswith(what)
        ]
    if not places:
        where = (
            f"outputs of {lock.revision}" if rev_given else f"outputs of {len(history.versions)} versions of dvc.lock"
        )
        raise UserError(f"hash '{what}': looked among the {where}, no stage wrote it; a hash that was only read: --data {what}")  # fmt: skip
    return Chain(repository, history, *places[0])
