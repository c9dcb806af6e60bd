"""Post finished stages to MLflow that are still waiting in .work/tracking.

    scalequest track [FOLDER]

Every stage starts this by itself when it ends. Run it by hand after MLflow was unreachable, or to wait for the last stage.
"""

import argparse
import os
from pathlib import Path

from scalequest.runtime.tracking import post_waiting


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest track``."""
    parser.add_argument(
        "folder", type=Path, nargs="?", default=Path(".work", "tracking"), help="where they wait (default: %(default)s)"
    )


def run(args: argparse.Namespace) -> int:
    """Post what waits; 1 if something could not be posted and is kept. A new store is this user's alone, as .work is."""
    before = os.umask(0o077)
    try:
        return int(bool(post_waiting(args.folder)))
    finally:
        os.umask(before)
