"""The command line: ``scalequest COMMAND``.

A command is one entry here and one module, which is loaded only when the command is called.
"""

import argparse
import difflib
import errno
import importlib
import io
import sys
from dataclasses import dataclass
from pathlib import Path

from scalequest.errors import UserError
from scalequest.io import discard_output
from scalequest.redaction import redacted


@dataclass(frozen=True)
class Command:
    """A command: the module with ``configure(parser)`` and ``run(args) -> exit code``, and one line of help.

    Attributes:
        at_root: whether it reads files relative to here, and so has to be called in the repository's root folder.
    """

    module: str
    help: str
    at_root: bool = False


COMMANDS = {
    "check": Command("scalequest.run.check", "name everything in the parameters that a run would stop at"),
    "profile": Command("scalequest.run.profile", "list the profiles, or switch params.yaml to one"),
    "deps": Command("scalequest.run.deps", "compare dvc.yaml's code dependencies with the imports, or rewrite them"),
    "pin": Command("scalequest.run.pin", "print the source line of a hub model at its newest commit"),
    "estimate": Command("scalequest.run.estimate", "estimate tokens, GPU hours, disk and cost of a run"),
    "preview": Command("scalequest.run.preview", "show some prompts of a stage and what its model answers", True),
    "tune": Command("scalequest.run.tune", "measure how many sequences an engine should decode at once"),
    "parallel": Command(
        "scalequest.run.parallel", "run the pipeline with independent stages side by side on several GPUs"
    ),
    "status": Command(
        "scalequest.run.status", "show what is done, running and waiting, with rows per second and GPUs", True
    ),
    "experiment": Command(
        "scalequest.run.experiment.command", "test the paper's claims: cells as experiments, a verdict for each claim"
    ),
    "track": Command("scalequest.run.track", "post finished stages to MLflow that are still waiting"),
    "journal": Command("scalequest.runtime.journal", "list what unfinished stages have kept, or delete it", True),
    "evaluate": Command("scalequest.run.evaluate", "score a model on benchmarks of mathematics, code or puzzles"),
    "errors": Command("scalequest.run.error_rates", "estimate how many made questions and answers are wrong"),
    "audit": Command(
        "scalequest.audit.command", "trace a file, model or row to its data, code and parameters, and back"
    ),
    "verify": Command("scalequest.audit.verify", "compare every claim of dvc.lock with the files"),
    "report": Command("scalequest.report.kept", "write the page of a finished run that Git keeps"),
    "cost": Command("scalequest.report.cost", "print time, tokens and GPU hours of each stage beside the paper's"),
    "compare": Command("scalequest.audit.compare", "compare two runs, output by output, and name where they part"),
    "publish": Command("scalequest.publish.command", "write data set and model with their cards, ready for the hub"),
    "register": Command("scalequest.publish.register", "register a model in MLflow with the hashes of its data"),
}


def version() -> str:
    """Return the installed version."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("scalequest")
    except PackageNotFoundError:  # run from a checkout that is not installed
        return "unknown (not installed)"


def check_command(name: str) -> None:
    """Refuse an unknown command, naming the closest one.

    Raises:
        UserError: there is no such command.
    """
    if name not in COMMANDS:
        close = difflib.get_close_matches(name, COMMANDS, n=1)
        hint = f"Did you mean '{close[0]}'?" if close else f"Expected one of: {', '.join(COMMANDS)}."
        raise UserError(f"'{name}': no such command. {hint}")


def run(argv: list[str]) -> int:
    """Parse a command line, run its command, and return the exit code."""
    if argv[:1] == ["help"]:
        argv = [*argv[1:2], "--help"]
    parser = argparse.ArgumentParser(
        prog="scalequest",
        description="ScaleQuest as a reproducible pipeline.",
        epilog="`scalequest help COMMAND` explains one command. `dvc repro` runs the pipeline.",
    )
    parser.add_argument("--version", action="store_true", help="print the version and exit")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    # Only the command that is called is loaded, so help and mistakes answer at once.
    called = next((word for word in argv if not word.startswith("-")), None)
    if called is not None:
        check_command(called)
    for name, command in COMMANDS.items():
        module = importlib.import_module(command.module) if name == called else None
        sub = commands.add_parser(
            name,
            help=command.help,
            description=module.__doc__ if module else None,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        if module:
            module.configure(sub)
    args = parser.parse_args(argv)
    if args.version:
        print(f"scalequest {version()}")
        return 0
    if args.command is None:
        parser.print_help()
        return 0
    if COMMANDS[args.command].at_root:
        from scalequest.params import PARAMS_FILE, check_there

        check_there(Path(PARAMS_FILE))
    return int(importlib.import_module(COMMANDS[args.command].module).run(args))


PROGRAMS = ("git", "dvc")  # that commands call by name
# A disk that is full, broken or read-only: the file system names no file while it writes one.
UNWRITTEN = (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS)


def reason(error: Exception) -> str | None:
    """One line for an error of the system about a file, or of DVC about the repository; None for any other."""
    if isinstance(error, FileNotFoundError) and error.filename in PROGRAMS:
        return f"{error.filename}: no such program here. Expected it on the PATH. Install it, and run again."
    if isinstance(error, OSError) and error.errno in UNWRITTEN:
        where = error.filename or "an output"
        return (
            f"{where}: {error.strerror}. Expected a disk that takes it. Make room or name another place, and run again."
        )
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}. Expected a file or folder that can be used so. Correct it, and run again."
    if any(kind.__module__ == "dvc.exceptions" for kind in type(error).__mro__):
        return f"DVC: {error}. Expected a repository that `dvc status` can read. Correct what it names, and run again."
    return None


def main(argv: list[str] | None = None) -> None:
    """Run one command; bad input ends with exit code 2 and one line that names the next step."""
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without ± shows something else, and ends no command
        sys.stdout.reconfigure(errors="replace")
    try:
        code = run(sys.argv[1:] if argv is None else argv)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {redacted(str(error))}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        discard_output()
        code = 141
    except KeyboardInterrupt:
        code = 130
    except Exception as error:
        if (said := reason(error)) is None:
            raise
        print(f"error: {redacted(said)}", file=sys.stderr)
        code = 2
    try:
        sys.stdout.flush()
    except OSError:  # what could not be printed before cannot be now, and the error was named
        discard_output()
    sys.exit(code)


if __name__ == "__main__":
    main()
