"""Check a parameter file without running anything."""

import argparse
import sys
from pathlib import Path

from scalequest.errors import UserError
from scalequest.models.source import parse_source
from scalequest.params import PARAMS_FILE, Params, Training, load_all


def obstacles(params: Params) -> list[str]:
    """What the file is right about and a run would still stop at, hours later: a line each."""
    from scalequest.training.job import global_micro_batch
    from scalequest.training.launch import n_processes

    found = []
    for role, source in params.models.items():
        kind, name, commit = parse_source(role, source)
        if kind == "hf" and set(commit) == {"0"}:
            found.append(
                f"models.{role}: '{source}' has forty zeros in the place of a commit; `python -m scalequest.run.pin {name}` prints "
                "the one that its main branch is at"
            )
    try:
        processes = n_processes(params.runtime)
    except UserError as error:
        return [*found, str(error)]
    for stage, section in params:
        if isinstance(section, Training) and section.method != "none":
            try:
                global_micro_batch(section, processes)
            except UserError as error:
                found.append(f"{stage}.{error}")
    return found


def main() -> None:
    """Check one parameter file, print what is wrong or that nothing is."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path, nargs="?", default=Path(PARAMS_FILE))
    args = parser.parse_args()
    try:
        params = load_all(args.file)
    except UserError as error:
        sys.exit(f"error: {error}")
    if found := obstacles(params):
        sys.exit("\n  ".join([f"error: {args.file}: {len(found)} thing(s) that a run would stop at", *found]))
    print(f"{args.file}: fine ({len(params.mix)} generators, {len(params.models)} roles)")


if __name__ == "__main__":
    main()
