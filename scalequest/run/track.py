"""Post finished stages to MLflow that are still waiting in .work/tracking.

    scalequest track [FOLDER]

Every stage starts this by itself when it ends. Run it by hand after MLflow was unreachable, or to wait for the last stage.
"""

import argparse
import os
from pathlib import Path

from scalequest.errors import UserError
from scalequest.params import PARAMS_FILE, check_there
from scalequest.runtime.tracking import post_waiting

WAITING = Path(".work", "tracking")


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest track``."""
    parser.add_argument(
        "--no-wait", action="store_true", help="end at once while another process posts, which then posts these, too"
    )
    parser.add_argument("folder", type=Path, nargs="?", default=WAITING, help="where they wait (default: %(default)s)")


def run(args: argparse.Namespace) -> int:
    """Post what waits; 1 if something could not be posted and is kept. A new store is this user's alone, as .work is."""
    if not args.folder.is_dir():
        if args.folder == WAITING:  # elsewhere there is nothing, whatever waits in the root folder
            check_there(Path(PARAMS_FILE))
        print(f"{args.folder}: nothing is waiting")
        return 0
    if len(args.folder.resolve().parents) < 2:
        raise UserError(f"{args.folder}: in no checkout. Expected {WAITING} of one. Name that folder, or none.")
    before = os.umask(0o077)
    try:
        return int(bool(post_waiting(args.folder, wait=not args.no_wait)))
    finally:
        os.umask(before)
