"""Score any model on any benchmark, as the pipeline scores its own: zero-shot, greedy, pass@1, chat template on.

    scalequest evaluate models/student --tasks gsm8k,math500 --limit 100
    scalequest evaluate ORG/NAME@COMMIT --tasks humaneval,mbpp --scores scores.json --samples samples.parquet

A model is a folder or a repository of the hub. A task is a benchmark by its name, from params.yaml or eval/benchmarks.yaml.
Its items decide whether it is mathematics (the final answer is compared) or code (the tests are run in the sandbox). A code
benchmark runs programs that the model wrote: see scalequest/answers/sandbox.py.
"""

import argparse
import difflib
import logging
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from pydantic import TypeAdapter, ValidationError

from scalequest.answers.compare import close_pools
from scalequest.errors import UserError
from scalequest.evaluation import Exam, run_exam, scores_in_words, summarize
from scalequest.io import write_json, write_jsonl
from scalequest.models.folder import local_path
from scalequest.params import FileSource, JsonlSource, ReasoningGymSource, Source, load_all, read_yaml
from scalequest.problems.problem import benchmark_row
from scalequest.problems.sources import load_problems
from scalequest.records import SAMPLE, write_rows
from scalequest.runtime.threads import limit_spinning

log = logging.getLogger("scalequest")


# ---------------------------------------------------------------------------------------------------------- benchmarks


def known_benchmarks(own: dict[str, Any], catalogue: Path) -> dict[str, list[Any]]:
    """Every benchmark by name, with its sources in the order in which they are tried; those of params.yaml go first.

    Raises:
        UserError: the catalogue has an entry that is no list of sources.
    """
    adapter: TypeAdapter[list[Any]] = TypeAdapter(list[Source])
    known = {}
    for name, entry in read_yaml(catalogue).items():
        try:
            known[name] = adapter.validate_python(entry)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in (name, *first["loc"]))
            raise UserError(f"{catalogue}: {where}: {first['msg']}") from None
    return known | {name: [source] for name, source in own.items()}


def first_source(name: str, sources: Sequence[ReasoningGymSource | FileSource]) -> ReasoningGymSource | FileSource:
    """The first source that is available: a local file that exists, or one of another kind.

    Raises:
        UserError: all are local files, and none exists.
    """
    for source in sources:
        if not isinstance(source, JsonlSource) or Path(source.path).expanduser().is_file():
            return source
    files = [source.path for source in sources if isinstance(source, JsonlSource)]
    raise UserError(
        f"{name}: none of its files is there: {', '.join(files)}. Expected one of them. See docs/evaluation.md"
    )


def write_benchmarks(names: Sequence[str], known: dict[str, list[Any]], seed: int, out: Path) -> None:
    """Write the items of each named benchmark to ``out/NAME.jsonl``.

    Raises:
        UserError: there is no such benchmark (the nearest name is suggested), or its source is not there.
    """
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = f"Did you mean '{close[0]}'? " if close else ""
            raise UserError(f"--tasks: no benchmark '{name}'. {hint}Expected one of {', '.join(sorted(known))}.")
        problems = load_problems(name, first_source(name, known[name]), seed, need_solution=False)
        write_jsonl(out / f"{name}.jsonl", map(benchmark_row, problems))


# -------------------------------------------------------------------------------------------------------- command line


def find_model(name: str) -> Path:
    """The folder of a model, given as a folder or as a repository of the hub, which is downloaded to the hub's cache.

    Raises:
        UserError: there is neither such a folder nor such a repository.
    """
    folder = Path(name.removeprefix("path:")).expanduser()
    if folder.is_dir():
        return local_path(folder)
    if name.startswith(("path:", "models/", "./", "../", "/", "~")):
        raise UserError(
            f"{name}: no such folder. Expected a model. Run `dvc repro` or `dvc pull` for one of models/, "
            "or give ORG/NAME@COMMIT of the hub"
        )
    repo, _, revision = name.removeprefix("hf:").partition("@")
    if repo.count("/") != 1:
        raise UserError(f"{name}: no such folder, and no repository of the hub. Expected ORG/NAME or ORG/NAME@COMMIT")
    from huggingface_hub import snapshot_download

    patterns = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]
    try:
        snapshot = Path(snapshot_download(repo, revision=revision or None, allow_patterns=patterns))
    except Exception as error:  # the hub's client raises its HTTP library's errors, too
        raise UserError(
            f"{name}: no such folder, and it could not be downloaded ({type(error).__name__}: {error})"
        ) from None
    log.info("%s: commit %s", repo, snapshot.name)
    return local_path(snapshot)


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest evaluate``."""
    parser.add_argument("model", help="folder, or ORG/NAME[@COMMIT] of the hub")
    parser.add_argument("--tasks", required=True, help="benchmarks by name, separated by commas")
    parser.add_argument("--limit", type=int, help="items per task, drawn by a hash of their ids (default: all)")
    parser.add_argument("--max-tokens", type=int, default=1024, help="new tokens per item (default: 1024; paper: 2048)")
    parser.add_argument("--max-model-len", type=int, default=2048, help="tokens, prompt and answer (default: 2048)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: engine.dtype of params.yaml")
    parser.add_argument("--scores", type=Path, help="also write the scores to this JSON file")
    parser.add_argument("--samples", type=Path, help="write every item and answer to this Parquet file")


def evaluate(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Evaluate as the options say, write what they ask for, and return the scores by task.

    Raises:
        UserError: a model, benchmark or option does not exist or has a wrong value.
    """
    names = [name for name in args.tasks.split(",") if name]
    if not names:
        raise UserError("--tasks: no name given. Expected benchmarks, separated by commas")
    if (args.limit is not None and args.limit < 1) or not 1 <= args.max_tokens < args.max_model_len:
        raise UserError(
            f"--limit {args.limit}, --max-tokens {args.max_tokens}, --max-model-len {args.max_model_len}: "
            "expected at least one item, and room for a prompt beside the new tokens"
        )
    params = load_all()
    engine = params.engine.model_copy(
        update={"max_model_len": args.max_model_len} | ({"dtype": args.dtype} if args.dtype else {})
    )
    with tempfile.TemporaryDirectory() as folder:
        known = known_benchmarks(params.benchmarks, Path("eval", "benchmarks.yaml"))
        write_benchmarks(names, known, params.seed, Path(folder))
        model = find_model(args.model)
        exam = Exam(Path("eval", "tasks"), Path(folder), names, args.max_tokens, args.limit, domain=params.domain)
        rows = run_exam(model, exam, engine, params.runtime)
    scores = summarize(rows)
    if args.samples:
        write_rows(args.samples, rows, SAMPLE)
    if args.scores:
        settings = {"limit": args.limit, "max_tokens": args.max_tokens, "dtype": engine.dtype}
        write_json(args.scores, {"model": args.model, "settings": settings, "tasks": scores})
    return scores


def run(args: argparse.Namespace) -> NoReturn:
    """Evaluate and end the process: vLLM and torch leave threads that can stall an interpreter's exit."""
    limit_spinning(os.environ)
    print(scores_in_words(evaluate(args)))
    close_pools()
    sys.stdout.flush()
    os._exit(0)
