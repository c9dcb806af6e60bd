"""The command line: `scalequest COMMAND`. A command is one line here, and a module that is loaded only when it is called."""

import argparse
import importlib
import os
import sys
from dataclasses import dataclass

from scalequest.errors import UserError


@dataclass(frozen=True)
class Command:
    """A command: the module that has ``configure(parser)`` and ``run(args) -> exit code``, and what it does."""

    module: str
    help: str


COMMANDS = {
    "audit": Command("scalequest.audit.command", "which data, models, parameters and code produced this, both ways"),
    "verify": Command("scalequest.audit.verify", "hold every claim of dvc.lock against the bytes"),
    "evaluate": Command("scalequest.run.evaluate", "score any model on any benchmark: mathematics or code"),
    "estimate": Command("scalequest.run.estimate", "tokens, GPU-hours, disk and money of a run, before it is made"),
    "repro": Command("scalequest.run.parallel", "run the pipeline with independent stages side by side, one a GPU"),
    "deps": Command("scalequest.run.deps", "code dependencies of dvc.yaml: compare with the imports, or rewrite"),
    "profile": Command("scalequest.run.profile", "list the profiles, or switch params.yaml to one"),
    "journal": Command("scalequest.runtime.journal", "what half-done stages left behind, and --clean"),
    "publish": Command("scalequest.publish.command", "write data set and model with their cards, ready for the hub"),
    "register": Command("scalequest.publish.register", "register a model in MLflow with the hashes of its data"),
}


def main(argv: list[str] | None = None) -> None:
    """Run one command; bad input ends with 2 and one line that says what to do."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(prog="scalequest", description="ScaleQuest as a reproducible pipeline.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    # Only the command that is called is loaded: help and mistakes answer at once.
    called = next((word for word in argv if not word.startswith("-")), None)
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
    try:
        code = importlib.import_module(COMMANDS[args.command].module).run(args)
        sys.stdout.flush()
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except BrokenPipeError:  # the reader (head, less) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = 141
    sys.exit(code)


if __name__ == "__main__":
    main()
