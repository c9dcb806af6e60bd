"""Check the parameters that name stages and files, before anything runs.

python -m stages.check --metrics reports/metrics/check.json

DVC puts these parameters into paths, and of a wrong one it says only that a path is missing. Every stage checks the whole of
params.yaml when it starts; this one is the first of dvc.yaml and needs nothing, so it starts before DVC looks for such a path.
It also compares a user's own files with their pins.
"""

import argparse

from scalequest.params import HubSource, Own
from scalequest.problems.pinned import pinned_file, pinned_pairs
from scalequest.runtime.stage import StageRun, run_stage


def check_files(own: Own, data: str, data_sha256: str | None) -> int:
    """Compare a user's files with their pins, and return how many there are. One of the hub is fetched by its stage.

    Raises:
        UserError: a file is missing, or has other bytes.
    """
    sources = dict(own.sources())
    for key, source in sources.items():
        if not isinstance(source, HubSource):
            pinned_file(key, source)
    if data_sha256 is None:  # `instruct_tune.data` names no file
        return len(sources)
    pinned_pairs(data, data_sha256)
    return len(sources) + 1


def main(args: argparse.Namespace, run: StageRun) -> None:
    """Look at the files. The names were checked with the rest of the parameters, before this."""
    names = [*run.params.mix, run.params.generate.from_, run.params.preferences.source, run.params.respond.questions]
    names += [run.params.respond.model, run.params.reward_select.waits_for, run.params.instruct_tune.waits_for]
    files = check_files(run.params.own, run.params.instruct_tune.data, run.params.instruct_tune.data_sha256)
    run.metrics(args.metrics, {"names": len(names), "own_files": files})


if __name__ == "__main__":
    run_stage(main, __doc__, paths=("metrics",))
