"""Score any model on any benchmark, as the pipeline scores its own: zero-shot, greedy, pass@1, chat template on.

    scalequest evaluate models/student --tasks gsm8k,math500 --limit 100
    scalequest evaluate ORG/NAME@COMMIT --tasks humaneval,mbpp --scores scores.json --samples samples.parquet
    scalequest evaluate models/student --tasks aime24,aime25 --answers 16        # avg@16, at temperature 0.6
    scalequest evaluate --list                                                   # the benchmarks

A model is a folder or a repository of the hub. A task is a benchmark by its name, from params.yaml or eval/benchmarks.yaml.
It works in any folder: outside of a copy of this repository, with the parameters of the one that is installed.
Its items decide whether it is mathematics (the final answer is compared) or code (the tests are run in the sandbox). A code
benchmark runs programs that the model wrote: see scalequest/answers/sandbox.py.
"""

import argparse
import difflib
import logging
import math
import os
import socket
import sys
import tempfile
from collections import Counter
from collections.abc import MutableMapping, Sequence
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit
from urllib.request import getproxies

from pydantic import TypeAdapter, ValidationError

from scalequest.answers.compare import close_pools
from scalequest.errors import UserError
from scalequest.evaluation import Draws, Exam, resolve_tasks, run_exam, scores_in_words, summarize
from scalequest.io import read_jsonl, write_json, write_jsonl
from scalequest.models.folder import local_path
from scalequest.params import (
    FileSource,
    HubSource,
    JsonlSource,
    PackageSource,
    Params,
    ReasoningGymSource,
    Source,
    load_all,
    read_yaml,
)
from scalequest.params.file import PARAMS_FILE
from scalequest.problems.problem import benchmark_row
from scalequest.problems.sources import load_problems
from scalequest.records import SAMPLE, write_rows
from scalequest.run.outputs import check_output
from scalequest.runtime.threads import limit_spinning

log = logging.getLogger("scalequest")

TASKS, CATALOGUE = Path("eval", "tasks"), Path("eval", "benchmarks.yaml")


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


def source_files(source: Any, root: Path) -> Any:
    """A source with its local file found from any folder: a relative path belongs to the repository ``root``."""
    if not isinstance(source, JsonlSource):
        return source
    return source.model_copy(update={"path": str(root / Path(source.path).expanduser())})


def available(sources: Sequence[Any]) -> str:
    """Where a benchmark comes from at the moment, in one word: its file, package, generator or hub."""
    for source in sources:
        if isinstance(source, JsonlSource):
            if Path(source.path).is_file():
                return "file"
        elif isinstance(source, PackageSource):
            return "package"
        else:
            return "hub" if isinstance(source, HubSource) else "generated"
    return "missing"


def list_benchmarks(known: dict[str, list[Any]], root: Path) -> str:
    """A line per benchmark: its name, where it comes from, and the files below ``root`` that were looked for."""
    lines = [f"{'task':<18} {'from':<10} source"]
    for name, sources in sorted(known.items()):
        places = "; else ".join(address_of(source).removeprefix(f"{root}/") for source in sources)
        lines.append(f"{name:<18} {available(sources):<10} {places}")
    lines.append(f"file, package, generated: no network is needed; missing: put its file there. Files are in {root}")
    return "\n".join(lines)


def address_of(source: Any) -> str:
    """A source in words."""
    if isinstance(source, JsonlSource):
        return source.path
    if isinstance(source, PackageSource):
        return f"{source.package} {source.version}"
    return f"{source.repo}@{source.commit[:7]}" if isinstance(source, HubSource) else f"reasoning_gym {source.dataset}"


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
    for name in names:
        source = first_source(name, known[name])
        try:
            problems = load_problems(name, source, seed, need_solution=False)
        except UserError as error:
            files = [other.path for other in known[name] if isinstance(other, JsonlSource)]
            if isinstance(source, HubSource) and files:  # the hub was tried because none of them is there
                raise UserError(f"{error}. Or put its file here: {', '.join(files)}") from None
            raise
        write_jsonl(out / f"{name}.jsonl", map(benchmark_row, problems))


# -------------------------------------------------------------------------------------------------------- command line


def work_without_hub(environment: MutableMapping[str, str]) -> None:
    """Set the hub's client to its cache alone where the hub has no address here: it would retry for 24 s."""
    if getproxies():
        return  # the proxy looks the name up
    host = urlsplit(environment.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        log.warning("%s has no address here: only what was downloaded before is used", host)
        environment["HF_HUB_OFFLINE"] = "1"


def find_root(folder: Path) -> Path:
    """The copy of this repository that ``folder`` is in; outside of any, the installed one.

    Raises:
        UserError: it is installed without its repository.
    """
    places = [folder, *folder.parents, Path(__file__).parents[2]]
    for place in places:
        if (place / PARAMS_FILE).is_file() and (place / TASKS).is_dir():
            return place
    raise UserError(
        f"{folder}: no {PARAMS_FILE} with {TASKS} here or above, and scalequest is installed without its repository. "
        "Expected a copy of the repository. Change into one"
    )


def find_model(name: str, root: Path = Path()) -> Path:
    """The folder of a model, given as a folder or as a repository of the hub, which is downloaded to the hub's cache.

    A relative folder that is not here is looked for in the repository ``root``, too.

    Raises:
        UserError: there is neither such a folder nor such a repository.
    """
    folder = Path(name.removeprefix("path:")).expanduser()
    for place in (folder, root / folder):
        if place.is_dir():
            return local_path(place)
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
    parser.add_argument("model", nargs="?", help="folder, or ORG/NAME[@COMMIT] of the hub")
    parser.add_argument("--tasks", default="", help="benchmarks by name, separated by commas")
    parser.add_argument("--list", action="store_true", help="list the benchmarks, and where each comes from")
    parser.add_argument("--limit", type=int, help="items per task, drawn by a hash of their ids (default: all)")
    parser.add_argument("--answers", type=int, default=1, metavar="K", help="answers per item, scored by their mean: avg@k (default: 1)")  # fmt: skip
    parser.add_argument("--temperature", type=float, help="default: 0, greedy; with several answers 0.6")
    parser.add_argument("--top-p", type=float, help="default: 1.0; at a temperature 0.95")
    parser.add_argument("--seed", type=int, help="of the sampled answers (default: seed of params.yaml)")
    parser.add_argument(
        "--form", choices=("worked", "program"), help="how mathematics is asked (default: evaluate.form of params.yaml)"
    )
    parser.add_argument("--max-tokens", type=int, default=1024, help="new tokens per item (default: 1024; paper: 2048)")
    parser.add_argument("--max-model-len", type=int, default=2048, help="tokens, prompt and answer (default: 2048)")
    parser.add_argument("--dtype", choices=("float32", "bfloat16"), help="default: engine.dtype of params.yaml")
    parser.add_argument("--scores", type=Path, help="also write the scores to this JSON file")
    parser.add_argument("--samples", type=Path, help="write every item and answer to this Parquet file")


def draws_of(args: argparse.Namespace, seed: int) -> Draws:
    """How the options want answers drawn: greedy, and with several answers as avg@k is usually measured.

    Raises:
        UserError: a value is out of its range, or several answers would be equal.
    """
    several = args.answers > 1
    temperature = (0.6 if several else 0.0) if args.temperature is None else args.temperature
    top_p = (0.95 if temperature else 1.0) if args.top_p is None else args.top_p
    if args.answers < 1 or not 0 <= temperature < math.inf or not 0 < top_p <= 1 or (several and temperature == 0):
        raise UserError(
            f"--answers {args.answers}, --temperature {temperature}, --top-p {top_p}: expected at least one answer, a "
            "finite temperature of at least 0, above 0 for several answers, and top-p in (0, 1]. Correct it."
        )
    return Draws(args.answers, temperature, top_p, seed if args.seed is None else args.seed)


def benchmarks_of(root: Path) -> tuple[Params, dict[str, list[Any]]]:
    """The parameters of a copy of the repository, and its benchmarks by name, local files by their whole path."""
    params = load_all(None if "SCALEQUEST_PARAMS" in os.environ else root / PARAMS_FILE)
    known = known_benchmarks(params.benchmarks, root / CATALOGUE)
    return params, {name: [source_files(source, root) for source in sources] for name, sources in known.items()}


def lm_eval_items(name: str) -> dict[str, Any]:
    """The items of a benchmark as lm-eval's own command line takes them: ``{"test": data set}``, asked as here, greedy."""
    from datasets import Dataset

    root = find_root(Path.cwd())
    params, known = benchmarks_of(root)
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "source"), Path(folder, "target")
        write_benchmarks([name], known, params.seed, source)
        target.mkdir()
        resolve_tasks(root / TASKS, source, target, [name], domain=params.domain)
        return {"test": Dataset.from_list(list(read_jsonl(target / f"{name}.jsonl")))}


def evaluate(args: argparse.Namespace) -> dict[str, dict[str, float]]:
    """Evaluate as the options say, print the scores, write what the options ask for, and return the scores by task.

    Raises:
        UserError: a model, benchmark or option does not exist or has a wrong value.
    """
    names = [name.strip() for name in args.tasks.split(",") if name.strip()]
    root = find_root(Path.cwd())
    params, known = benchmarks_of(root)
    if not names:
        raise UserError(f"--tasks: no name given. Expected some of {', '.join(sorted(known))}, separated by commas")
    if twice := [name for name, n in Counter(names).items() if n > 1]:
        raise UserError(
            f"--tasks: {', '.join(twice)} twice. Expected each benchmark once. Leave one out; --answers K asks for several answers"
        )
    if args.model is None:
        raise UserError("model: none given. Expected a folder, or ORG/NAME@COMMIT of the hub, before --tasks")
    draws = draws_of(args, params.seed)
    if (args.limit is not None and args.limit < 1) or not 1 <= args.max_tokens < args.max_model_len:
        raise UserError(
            f"--limit {args.limit}, --max-tokens {args.max_tokens}, --max-model-len {args.max_model_len}: "
            "expected at least one item, and room for a prompt beside the new tokens"
        )
    check_output("--scores", args.scores)
    check_output("--samples", args.samples)
    engine = params.engine.model_copy(
        update={"max_model_len": args.max_model_len} | ({"dtype": args.dtype} if args.dtype else {})
    )
    with tempfile.TemporaryDirectory() as folder:
        write_benchmarks(names, known, params.seed, Path(folder))
        model = find_model(args.model, root)
        form = args.form or params.evaluate.form
        exam = Exam(
            root / TASKS, Path(folder), names, args.max_tokens, args.limit, domain=params.domain, draws=draws, form=form
        )
        rows = run_exam(model, exam, engine, params.runtime)
    scores = summarize(rows)
    print(scores_in_words(scores), flush=True)  # before what may fail
    if args.samples:
        write_rows(args.samples, rows, SAMPLE)
    if args.scores:
        settings = {"limit": args.limit, "max_tokens": args.max_tokens, "dtype": engine.dtype, "form": form} | vars(
            draws
        )
        write_json(args.scores, {"model": args.model, "settings": settings, "tasks": scores})
    return scores


def run(args: argparse.Namespace) -> NoReturn:
    """Evaluate and end the process: vLLM and torch leave threads that can stall an interpreter's exit."""
    if args.list:
        root = find_root(Path.cwd())
        print(list_benchmarks(benchmarks_of(root)[1], root))
        sys.stdout.flush()
        os._exit(0)
    limit_spinning(os.environ)
    work_without_hub(os.environ)
    evaluate(args)
    close_pools()
    sys.stdout.flush()
    os._exit(0)
