"""Check the parameters that name stages and files, before anything runs.

python -m stages.check --metrics reports/metrics/check.json

DVC puts these parameters into paths, and of a wrong one it says only that a path is missing. Every stage checks the whole of
params.yaml when it starts; this one is the first of dvc.yaml and needs nothing, so it starts before DVC looks for such a path.
It also compares a user's own files with their pins.
"""

import argparse
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import file_hash
from scalequest.params import HubSource, Own
from scalequest.problems.pinned import check_pin, find_file
from scalequest.runtime.stage import StageRun, run_stage


def check_own(own: Own) -> int:
    """Compare the files of own rows with their pins, and return how many there are. One of the hub is fetched by its stage.

    Raises:
        UserError: a file is missing, or has other bytes.
    """
    sources = dict(own.sources())
    for key, source in sources.items():
        if isinstance(source, HubSource):
            continue
        path = find_file(key, source)
        if not path.is_file():
            raise UserError(f"{key}: {path}: no such file. Expected JSON lines or Parquet. Correct the path.")
        check_pin(key, source, path)
    return len(sources)


def check_training_file(data: str, pinned: str | None) -> int:
    """Compare the file of ``instruct_tune.data`` with its pin, and return 1; 0 where it names no file (``pinned`` is None then).

    Raises:
        UserError: it is missing, or has other bytes.
    """
    if pinned is None:
        return 0
    path = Path(data).expanduser()
    if not path.is_file():
        raise UserError(
            f"instruct_tune.data: {path}: no such file. Expected instruct, seeds or a file of pairs. Correct it."
        )
    if (found := file_hash(path)) != pinned:
        raise UserError(
            f"instruct_tune.data_sha256: {path} has {found}. Expected {pinned}. Restore the file, or pin the new hash."
        )
    return 1


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Look at the files. The names were checked with the rest of the parameters, before this."""
    names = [*run.params.mix, run.params.generate.from_, run.params.preferences.source, run.params.respond.questions]
    names += [run.params.respond.model, run.params.instruct_tune.waits_for]
    files = check_own(run.params.own)
    files += check_training_file(run.params.instruct_tune.data, run.params.instruct_tune.data_sha256)
    run.metrics(args.metrics, {"names": len(names), "own_files": files})


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("metrics",))
