"""Where problems come from, for seeds and benchmarks alike: reasoning_gym by seed, or a file: local, of the hub, of a package."""

import logging
import random
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.answers.code import is_test_program
from scalequest.errors import UserError
from scalequest.io import read_json, read_jsonl
from scalequest.params import FileSource, HubSource, JsonlSource, PackageSource, ReasoningGymSource
from scalequest.problems.known_datasets import canonical, stratum
from scalequest.problems.problem import Problem, new_problem, worked_solution
from scalequest.problems.reasoning_gym import draw_problems
from scalequest.text import question_key

log = logging.getLogger("scalequest")


def load_problems(
    name: str, source: ReasoningGymSource | FileSource, seed: int, need_solution: bool, need_answer: bool = True
) -> list[Problem]:
    """The problems of one source, exact duplicates dropped, in a fixed order.

    Args:
        name: the source's key in params.yaml, part of each id.
        source: where to read.
        seed: the run's seed, which draws ``n`` of a file's rows.
        need_solution: whether a row must have a worked solution (seeds) or not (benchmarks).
        need_answer: whether a row must have what a response is checked by; seeds of a code run need not.

    Raises:
        UserError: the source does not exist, lacks a column, has an empty question, or gives fewer than ``n``.
    """
    if isinstance(source, ReasoningGymSource):
        problems = draw_problems(name, source)
    else:
        problems = _from_file(name, source, seed, need_solution, need_answer)
    if not problems:
        raise UserError(f"{name}: no problems came from this source; expected at least one")
    return problems


# --------------------------------------------------------------------------------------------------------------- files


def find_file(name: str, source: FileSource) -> Path:
    """The local file of a source; one of the hub is downloaded to its cache.

    Raises:
        UserError: it is not there, or not in the pinned version.
    """
    if isinstance(source, JsonlSource):
        return Path(source.path).expanduser()
    if isinstance(source, PackageSource):
        return _package_file(name, source)
    assert isinstance(source, HubSource)
    return _hub_file(name, source)


def _hub_file(name: str, source: HubSource) -> Path:
    from huggingface_hub import errors, hf_hub_download

    what = f"{source.repo}, commit {source.commit}, file {source.file}"
    try:
        return Path(hf_hub_download(source.repo, source.file, repo_type="dataset", revision=source.commit))
    except errors.LocalEntryNotFoundError as error:  # also a kind of EntryNotFoundError, and of no other below
        raise UserError(
            f"{name}: {what} could not be fetched ({error.__cause__ or error}); without a network use kind jsonl and a local file"
        ) from None
    except (errors.RepositoryNotFoundError, errors.RevisionNotFoundError, errors.EntryNotFoundError) as error:
        missing = type(error).__name__.removesuffix("NotFoundError").removeprefix("Remote")
        raise UserError(
            f"{name}: the hub has no such {missing.lower()} that you may read: {what}; check the names; a gated data set needs its "
            "terms accepted and HF_TOKEN set"
        ) from None
    except OSError as error:
        raise UserError(
            f"{name}: {what} could not be fetched ({type(error).__name__}: {error}); run again, or use kind jsonl and a local file"
        ) from None


def _package_file(name: str, source: PackageSource) -> Path:
    import importlib.metadata

    try:
        installed = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{name}: the package {source.package} is not installed; install {source.package}=={source.version}"
        ) from None
    if installed.version != source.version:
        raise UserError(
            f"{name}: {source.package} is installed in version {installed.version}, params.yaml pins {source.version}; install "
            "that one, or pin anew"
        )
    return Path(str(installed.locate_file(source.file)))


def read_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a JSONL (also .gz), JSON or Parquet file, and where it stands, for messages.

    Raises:
        UserError: there is no such file, or it holds something else.
    """
    if path.suffix == ".parquet" and path.is_file():
        import pyarrow.parquet as pq

        for number, row in enumerate(pq.read_table(path).to_pylist(), start=1):
            yield f"{path}:{number}", row
    elif path.suffix == ".json" and path.is_file():
        rows = read_json(path)
        if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
            raise UserError(f"{path}: no list of JSON objects; expected one, or one object a line in a .jsonl file")
        for number, row in enumerate(rows, start=1):
            yield f"{path}:{number}", row
    else:
        for number, row in enumerate(read_jsonl(path), start=1):
            yield f"{path}:{number}", row


def _from_file(name: str, source: FileSource, seed: int, need_solution: bool, need_answer: bool) -> list[Problem]:
    path = find_file(name, source)
    rows = [
        (where, canonical(row), stratum(row))
        for where, row in read_file(path)
        if all(row.get(column) == value for column, value in source.where.items())
    ]
    digest = sha256(path.read_bytes()).hexdigest()
    if source.sha256 is None and isinstance(source, JsonlSource):
        log.warning("%s: %s is not pinned; put `sha256: %s` beside its path so that a changed file stops the stage", name, path, digest)  # fmt: skip
    elif source.sha256 not in (None, digest):
        raise UserError(
            f"{name}: {path} has sha256 {digest}, params.yaml pins {source.sha256}; restore the file or pin anew"
        )
    columns = ["question"] + ["answer"] * need_answer + ["solution"] * need_solution
    problems: list[Problem] = []
    seen: set[str] = set()
    no_answer = 0
    for number, (where, row, subject) in enumerate(rows):
        if missing := [c for c in columns if c not in row]:
            raise UserError(f"{where}: no column {missing}, found {sorted(row)}; expected {columns} in every row")
        question, answer, solution = (
            "" if row.get(c) is None else str(row[c]).strip() for c in ("question", "answer", "solution")
        )
        if not question:
            raise UserError(f"{where}: the question is empty (id {row.get('id', '?')!r}); remove the row or fill it in")
        if not answer and need_answer:
            no_answer += 1
            continue
        if (key := question_key(question)) in seen:
            continue
        seen.add(key)
        is_code = not answer or is_test_program(answer)
        problems.append(
            new_problem(
                name,
                str(number),
                question,
                solution if is_code else worked_solution(solution, answer),
                answer,
                subject,
            )
        )
    if no_answer:
        log.warning("%s: %d of %d rows have no answer and are left out", name, no_answer, len(rows))
    if source.n is None:
        return problems
    if len(problems) < source.n:
        raise UserError(
            f"{name}: {path} has {len(problems)} distinct problems with an answer, n is {source.n}; lower n"
        )
    chosen = sorted(random.Random(f"{seed}/{name}").sample(range(len(problems)), source.n))
    return [problems[i] for i in chosen]
