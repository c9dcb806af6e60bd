"""Where problems come from, for seeds and benchmarks alike: reasoning_gym by seed, or a file: local, of the hub, of a package."""

import logging
import math
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from scalequest.answers.code import is_test_program
from scalequest.errors import UserError
from scalequest.io import file_hash
from scalequest.params import FileSource, HubSource, JsonlSource, PackageSource, ReasoningGymSource
from scalequest.problems.draw import draw
from scalequest.problems.files import read_file
from scalequest.problems.known_datasets import canonical, stratum
from scalequest.problems.problem import Problem, new_problem, worked_solution
from scalequest.problems.puzzles import known_answer
from scalequest.problems.reasoning_gym import draw_problems
from scalequest.text import question_key

log = logging.getLogger("scalequest")


@dataclass
class Loaded:
    """What came of one source.

    Attributes:
        problems: in a fixed order, each question once.
        left_out: number of rows left out, by reason.
        without_solution: number of ``problems`` that teach the bare answer, because their row has no worked solution.
    """

    problems: list[Problem]
    left_out: dict[str, int]
    without_solution: int = 0


def load_problems(
    name: str, source: ReasoningGymSource | FileSource, seed: int, need_solution: bool, need_answer: bool = True
) -> list[Problem]:
    """The problems of one source: ``load_source`` without its counts."""
    return load_source(name, source, seed, need_solution, need_answer).problems


def load_source(
    name: str,
    source: ReasoningGymSource | FileSource,
    seed: int,
    need_solution: bool,
    need_answer: bool = True,
    exclude: Collection[str] = frozenset(),
) -> Loaded:
    """The problems of one source, exact duplicates dropped, in a fixed order, and what was left out.

    Args:
        name: the source's key in params.yaml, part of each id.
        source: where to read.
        seed: the run's seed, which draws ``n`` of a file's rows.
        need_solution: whether a row must have a worked solution (seeds) or not (benchmarks).
        need_answer: whether a row must have what a response is checked by; seeds of a code run need not.
        exclude: keys of questions that must not be among them (``question_key``).

    Raises:
        UserError: the source does not exist, lacks a column, has an empty question, or gives fewer than ``n``.
    """
    if isinstance(source, ReasoningGymSource):
        problems, excluded = draw_problems(name, source, exclude)
        bare = sum(p["solution"] == worked_solution("", known_answer(p["answer"])) for p in problems)
        loaded = Loaded(problems, {"benchmark_item": excluded} if excluded else {}, bare)
    else:
        loaded = _from_file(name, source, seed, need_solution, need_answer, exclude)
    if not loaded.problems:
        reasons = f" (left out: {_listed(loaded.left_out)})" if loaded.left_out else ""
        raise UserError(f"{name}: no problems came from this source{reasons}; expected at least one")
    return loaded


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


def check_inside(name: str, file: str) -> None:
    """Refuse the name of a file that is not inside its package or data set.

    Raises:
        UserError: it is absolute, or goes up.
    """
    if not file or file.startswith(("/", "~")) or "\\" in file or "\0" in file or ".." in file.split("/"):
        raise UserError(
            f"{name}: file {file!r} leaves its package or data set. Expected a path inside it. Correct `file`."
        )


def _hub_file(name: str, source: HubSource) -> Path:
    from huggingface_hub import errors, hf_hub_download

    check_inside(name, source.file)
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

    check_inside(name, source.file)
    try:
        installed = importlib.metadata.distribution(source.package)
    except importlib.metadata.PackageNotFoundError:
        raise UserError(
            f"{name}: the package {source.package} is not installed; install {source.package}=={source.version}"
        ) from None
    if installed.version != source.version:
        raise UserError(
            f"{name}: {source.package} is installed in version {installed.version}, params.yaml pins {source.version}; install "
            "that one, or pin the new version"
        )
    return Path(str(installed.locate_file(source.file)))


def _from_file(
    name: str, source: FileSource, seed: int, need_solution: bool, need_answer: bool, exclude: Collection[str]
) -> Loaded:
    path = find_file(name, source)
    check_pin(name, source, path)
    columns = ["question"] + ["answer"] * need_answer + ["solution"] * need_solution
    problems: list[Problem] = []
    bare: set[str] = set()
    seen: set[str] = set()
    left_out: Counter[str] = Counter()
    rows = (
        (where, row)
        for where, row in read_file(path)
        if all(row.get(column) == value for column, value in source.where.items())
    )
    number = -1
    for number, (where, raw) in enumerate(rows):
        row = canonical(raw)
        if missing := [c for c in columns if c not in row]:
            raise UserError(f"{where}: no column {missing}, found {sorted(row)}; expected {columns} in every row")
        question, answer, solution = (_text(where, c, row.get(c)) for c in ("question", "answer", "solution"))
        if not question:
            raise UserError(f"{where}: the question is empty (id {row.get('id', '?')!r}); remove the row or fill it in")
        if not answer and need_answer:
            left_out["no_answer"] += 1
            continue
        if (key := question_key(question)) in seen:
            left_out["duplicate"] += 1
            continue
        if key in exclude:
            left_out["benchmark_item"] += 1
            continue
        seen.add(key)
        is_code = not answer or is_test_program(answer)
        taught = solution if is_code else worked_solution(solution, known_answer(answer), source.calculator_marks)
        problems.append(new_problem(name, str(number), question, taught, answer, stratum(raw)))
        if not solution:
            bare.add(problems[-1]["id"])
    if left_out:
        log.warning("%s: left out of %d rows: %s", name, number + 1, _listed(left_out))
    if source.n is not None:
        if len(problems) < source.n:
            raise UserError(
                f"{name}: {path} has {len(problems)} distinct problems with an answer, n is {source.n}. "
                f"Left out of {number + 1} rows: {_listed(left_out) or 'none'}. Lower n."
            )
        # By the question: an id here is a row's number, and a file in another order would give other problems.
        keys, subjects = [question_key(p["question"]) for p in problems], [p["stratum"] for p in problems]
        problems = [problems[at] for at in draw(keys, source.n, seed, subjects, purpose=f"source {name}")]
    return Loaded(problems, dict(left_out), sum(p["id"] in bare for p in problems))


def check_pin(name: str, source: FileSource, path: Path) -> None:
    """Compare a file with the hash that params.yaml pins, before anything in it is parsed.

    Raises:
        UserError: another content, or a local file without a pin.
    """
    if not path.is_file() or (source.sha256 is None and not isinstance(source, JsonlSource)):
        return  # a file of the hub is pinned by its commit, one of a package by its version
    digest = file_hash(path)
    if source.sha256 is None:
        raise UserError(
            f"{name}: {path} is not pinned, so a changed file would go unnoticed. Expected its hash beside its path. "
            f"Add it to params.yaml: sha256: {digest}"
        )
    if source.sha256 != digest:
        raise UserError(
            f"{name}: {path} has sha256 {digest}, params.yaml pins {source.sha256}; restore the file, or pin the new hash"
        )


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {n}" for name, n in sorted(counts.items()))


def _text(where: str, column: str, value: Any) -> str:
    """A cell as stripped text: a list of one is its element, null and NaN are empty.

    Raises:
        UserError: another list, an object, or half a character.
    """
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if not isinstance(value, str | int | float | Decimal):
        what = f"a list of {len(value)}" if isinstance(value, list) else f"a {type(value).__name__}"
        raise UserError(
            f"{where}: {column} is {what}: {str(value)[:80]}. Expected text or a number. Split the row or join it."
        )
    text = str(value).strip()
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UserError(
            f"{where}: {column} holds half a character ({text[error.start]!r}). Expected Unicode text. Correct the row."
        ) from None
    return text
