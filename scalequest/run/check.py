"""Check the parameters without running a stage, and name everything that a run would stop at.

    scalequest check                  # params.yaml
    scalequest check paper-math       # a profile
    scalequest check my.yaml          # another parameter file, or an overlay
    scalequest check --online         # also ask the hub and the endpoint whether they have what is named

It names misspelt, missing and contradictory keys, commits still to be filled in, files and folders that are not there
or have other bytes than pinned, packages that are not installed, and batches that cannot be shared by the processes.
It compares two answers, as stages do after their engine has answered. Where models write programs, it runs one in the
sandbox.
It warns of stages whose results were made with other package versions than those installed: a lock file is no
dependency of a stage, so that DVC does not see it.
Exit code 0: nothing found. 1: a run would stop. 2: the file is not valid.
"""

import argparse
import re
import sys
from collections.abc import Iterator
from pathlib import Path

from scalequest.answers import sandbox
from scalequest.answers.compare import compare
from scalequest.domains import PROGRAM, wording
from scalequest.errors import UserError
from scalequest.models.source import parse_source, wheel_pin
from scalequest.params import PARAMS_FILE, FileSource, HubSource, JsonlSource, PackageSource, Params
from scalequest.params.sources import Source
from scalequest.redaction import api_key, redacted
from scalequest.run.packages import find_missing
from scalequest.run.profile import load_profile
from scalequest.runtime.environment import ENVIRONMENT_FILE, Recorded
from scalequest.runtime.facts import PACKAGES, package_versions

PLACEHOLDER = {"0"}
# Names of the data sets of code that scalequest/problems/known_datasets.py reads.
CODE_SETS = re.compile(r"human[_-]?eval|mbpp", re.IGNORECASE)
# Seconds to wait for an endpoint with --online.
TIMEOUT_S = 20


def find_blockers(params: Params, online: bool = False) -> list[str]:
    """Return what a run with these valid parameters would stop at, one sentence each.

    Args:
        params: checked parameters.
        online: also ask the hub for each model and data set, and the optimizer's endpoint for its models.
    """
    files = [*_sources(params, online), *_training_file(params), *_marks(params)]
    packages = find_missing(params, [script.stem for script in sorted(Path("stages").glob("[a-z]*.py"))])
    return [*packages, *_models(params, online), *files, *_processes(params), *_comparing(), *_sandbox(params)]


def other_packages(file: Path, installed: dict[str, str]) -> dict[str, list[str]]:
    """Stages whose recorded results were made with other versions of packages that decide bytes.

    Args:
        file: ``reports/environment.json``, written by the stages; one that is not there names nothing.
        installed: package to version, as installed now.

    Returns:
        ``transformers 5.19.0, now 5.24.0`` to the names of the stages that used it.
    """
    if not file.is_file():
        return {}
    record = Recorded.parse(file.read_bytes())
    found: dict[str, list[str]] = {}
    for stage, made in sorted(record.stages.items()):
        for line in record.environments.get(made["environment"], []):
            name, separator, version = line.partition("==")
            now = installed.get(name, "not installed")
            # A package that left the code decides nothing any more; the code's own change reruns its stages.
            if separator and name in PACKAGES and now != version:
                found.setdefault(f"{name} {version}, now {now}", []).append(stage)
    return found


def unpinned(params: Params) -> list[str]:
    """Model wheels without a hash: another file under the same name and version would go unnoticed."""
    return sorted({source for source in params.models.values() if source.startswith("pypi:") and not wheel_pin(source)})


def _comparing() -> Iterator[str]:
    """Check that comparing processes start: a stage needs them only after minutes on a GPU."""
    try:
        compare(["2\\sqrt{3}"], ["\\sqrt{12}"])
    except UserError as error:
        yield str(error)


def _sandbox(params: Params) -> Iterator[str]:
    """Whether programs that models write can run here, where some have to.

    The domain or the form of answers says so. Only where they do not, the benchmarks are read for
    tests: a run of mathematics may have a benchmark of code. A row that cannot be read is named,
    too, because the stage ``benchmarks`` stops at it.
    """
    needed = wording(params.domain).ANSWERS == "code" or PROGRAM in (params.respond.form, params.evaluate.form)
    for name in params.evaluate.tasks:
        try:
            needed = needed or _holds_tests(name, params.benchmarks[name])
        except UserError as error:
            yield f"benchmarks.{name}: {error}"
    if needed:
        sandbox.consent(params.runtime.sandbox)
        try:
            sandbox.run_program("pass")
        except UserError as error:
            yield str(error)


def _holds_tests(name: str, source: Source) -> bool:
    """Whether a benchmark's answers are test programs.

    One that is not here is judged by the names of known data sets.

    Raises:
        UserError: its file, or a row of it that the run takes, cannot be read.
    """
    from scalequest.answers.code import is_test_program
    from scalequest.problems.files import read_file
    from scalequest.problems.known_datasets import canonical

    if not isinstance(source, FileSource):
        return False
    file = _file_here(name, source)
    if file is None:
        return bool(CODE_SETS.search(f"{name} {source.model_dump_json()}"))
    # The rows that the run takes, as scalequest.problems.sources chooses them.
    rows = (
        (where, row)
        for where, row in read_file(file)
        if all(row.get(column) == value for column, value in source.where.items())
    )
    return any(is_test_program(str(canonical(row, where).get("answer") or "")) for where, row in rows)


def _file_here(name: str, source: FileSource) -> Path | None:
    """The file of a source if it is on this machine; nothing is fetched."""
    from huggingface_hub import try_to_load_from_cache

    from scalequest.problems.pinned import find_file

    if isinstance(source, HubSource):
        found = try_to_load_from_cache(source.repo, source.file, revision=source.commit, repo_type="dataset")
        file = Path(found) if isinstance(found, str) else None
    else:
        try:
            file = find_file(name, source)
        except UserError:  # a package that is missing, which _sources names
            return None
    return file if file and file.is_file() else None


def _models(params: Params, online: bool) -> Iterator[str]:
    from scalequest.models.folder import check_folder, file_sha256

    asked: set[str] = set()
    for role, source in params.models.items():
        if role == "reward" and params.reward_select.waits_for != "rewards":
            continue  # nothing that waits for the responses fetches it
        kind, name, commit = parse_source(role, source)
        if kind == "hf" and set(commit) == PLACEHOLDER:
            yield (
                f"models.{role}: '{source}' has forty zeros in place of a commit. `scalequest pin {name}` prints the "
                "commit that its main branch is at"
            )
        elif kind == "hf" and online and source not in asked:
            yield from _ask_hub(role, name, commit, dataset=False)
        elif kind == "path" and not (Path(name).expanduser() / "config.json").is_file():
            yield f"models.{role}: '{source}' is not a model folder. Expected a folder with config.json, relative to here"
        elif kind == "path":
            try:
                check_folder(role, Path(name).expanduser().resolve(), commit)
            except UserError as error:
                yield str(error)
        elif kind == "gguf" and not (file := Path(name).expanduser()).is_file():
            yield f"models.{role}: {file}: no such file. Expected a GGUF file, relative to here"
        elif kind == "gguf" and (found := file_sha256(file)) != commit:
            yield f"models.{role}: {file} has sha256 {found}, pinned is {commit or 'nothing'}. Write gguf:{name}#sha256={found}"
        elif kind == "api" and online:
            yield from _ask_endpoint(params, role, name)
        asked.add(source)


def _sources(params: Params, online: bool) -> Iterator[str]:
    from scalequest.models.folder import file_sha256
    from scalequest.problems.pinned import find_file

    sources = [
        (f"{part}.{name}", source) for part in ("seeds", "benchmarks") for name, source in getattr(params, part).items()
    ]
    for key, source in [*sources, *params.own.sources()]:
        if not isinstance(source, FileSource):
            continue
        if isinstance(source, HubSource):
            if set(source.commit) == PLACEHOLDER:
                yield f"{key}.commit: forty zeros. `scalequest pin --dataset {source.repo}` prints the newest commit"
            elif online:
                yield from _ask_hub(key, source.repo, source.commit, dataset=True)
            continue
        try:
            file = find_file(key, source)
        except UserError as error:
            yield str(error)
            continue
        if not file.is_file():
            where = "path" if isinstance(source, JsonlSource) else "file"
            hint = "" if isinstance(source, PackageSource) else ". The profile's head says where it comes from"
            yield f"{key}.{where}: {file} is not there{hint}"
        elif source.sha256 is None and isinstance(source, JsonlSource):
            yield f"{key}.sha256: {file} is not pinned. Write sha256: {file_sha256(file)}"
        elif source.sha256 is not None and (found := file_sha256(file)) != source.sha256:
            yield f"{key}.sha256: {file} has {found}. Expected {source.sha256}. Restore the file, or pin the new hash"


def _training_file(params: Params) -> Iterator[str]:
    """The file that the student learns from, where it is not the pipeline's own data."""
    from scalequest.problems.pinned import pinned_pairs

    tune = params.instruct_tune
    if tune.data_sha256 is not None:
        try:
            pinned_pairs(tune.data, tune.data_sha256)
        except UserError as error:
            yield str(error)


def _marks(params: Params) -> Iterator[str]:
    """A reader's marks, whose ids can be checked only where the questions are."""
    from scalequest.problems.marks import read_marks

    if params.filter.marks:
        try:
            read_marks(Path(params.filter.marks.path).expanduser(), params.filter.marks.sha256)
        except UserError as error:
            yield str(error)


def _processes(params: Params) -> Iterator[str]:
    from scalequest.training.job import global_micro_batch
    from scalequest.training.launch import n_processes

    try:
        processes = n_processes(params.runtime)
    except UserError as error:
        yield str(error)
        return
    for place, training in params.trainings().items():
        try:
            global_micro_batch(training, processes)
        except UserError as error:
            yield f"{place}.{error}"


def _ask_hub(key: str, repo: str, commit: str, dataset: bool) -> Iterator[str]:
    """Ask the hub whether it has a repository at a commit, and whether this account may read it."""
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        if dataset:
            api.dataset_info(repo, revision=commit, timeout=TIMEOUT_S)
        else:
            api.model_info(repo, revision=commit, timeout=TIMEOUT_S)
    # The hub's client passes on errors of its HTTP library, and they share no base class with its own.
    except Exception as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        yield f"{key if dataset else f'models.{key}'}: {repo} at {commit[:12]} is not available on the hub: {first}"


def _ask_endpoint(params: Params, role: str, url: str) -> Iterator[str]:
    """Ask an OpenAI-compatible endpoint for its list of models."""
    import httpx

    variable = params.runtime.api.of(role).key_variable
    try:
        key = api_key(variable)
    except UserError as error:
        yield str(error)
        return
    try:
        answer = httpx.get(
            f"{url}/models", headers={"Authorization": f"Bearer {key}"} if key else {}, timeout=TIMEOUT_S
        )
    except httpx.HTTPError as error:
        yield f"models.{role}: {url} does not answer: {redacted(str(error))}"
        return
    if answer.status_code in (401, 403):
        state = "was refused" if key else "is not set"
        yield f"models.{role}: {url} answers {answer.status_code}; the key in {variable} {state}"
    # Any other answer means that the endpoint is there; some servers have no /models.


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest check``."""
    parser.add_argument(
        "name", nargs="?", default=PARAMS_FILE, help="a profile or a parameter file (default: params.yaml)"
    )
    parser.add_argument("--online", action="store_true", help="ask the hub and the endpoint, too")


def run(args: argparse.Namespace) -> int:
    """Check one parameter file, and print what a run would stop at or that nothing was found.

    Raises:
        UserError: the file is not valid.
    """
    params = load_profile(args.name)
    if found := find_blockers(params, args.online):
        print(f"{args.name}: {len(found)} thing(s) that a run would stop at", *found, sep="\n  ", file=sys.stderr)
        return 1
    for source in unpinned(params):
        print(f"warning: {source} has no hash. `scalequest pin --write {args.name}` adds it", file=sys.stderr)
    for change, stages in other_packages(Path(ENVIRONMENT_FILE), package_versions()).items():
        names = " ".join(stages)
        print(
            f"warning: {len(stages)} stages were made with {change}. DVC calls them up to date, and a run would mix both "
            f"versions. To make them again: dvc repro -f -s {names}",
            file=sys.stderr,
        )
    print(f"{args.name}: fine (generators: {len(params.mix)}, models: {len(params.models)})")
    return 0
