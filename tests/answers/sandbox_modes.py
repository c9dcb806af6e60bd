"""The sandbox as it is with namespaces, and as it is where the kernel refuses them."""

import os
import sys
from pathlib import Path

import pytest

from scalequest.answers import sandbox
from scalequest.answers.sandbox import LANDLOCK, LIMITS, NAMESPACES, Limits, run_program
from scalequest.errors import UserError

# Short, so that the programs that never end cost a second each.
SHORT = Limits(cpu_s=1, wall_s=4.0)
OPEN = "open"
_NO_NAMESPACES = "import scalequest.answers.sandbox_child as child; child.leave_the_machine = lambda: False; "
_NO_LANDLOCK = "child.sandbox_filter.CREATE_RULESET = 10_000; "


def _grants_namespaces() -> bool:
    try:
        return run_program("pass").isolated
    except UserError:
        return False


GRANTED = _grants_namespaces()


def refuse_namespaces(monkeypatch: pytest.MonkeyPatch, landlock: bool = True) -> None:
    """Have the sandbox find a kernel that grants no namespaces."""
    python = "/usr/bin/python3.11" if os.getuid() == 0 else sys.executable  # root's own may be closed to others
    if not Path(python).exists():
        pytest.skip("as root this needs a Python that every user can run")
    start = sandbox.START.replace("del sys.path[0]", _NO_NAMESPACES + _NO_LANDLOCK * (not landlock) + "del sys.path[0]")
    monkeypatch.setattr(sandbox, "PYTHON", (python, "-S", "-s", "-P", "-c", start, str(sandbox.ROOT)))


def isolations(mode: str) -> set[str]:
    """What a verdict may say of its isolation in a mode."""
    return {NAMESPACES} if mode == NAMESPACES else {LANDLOCK, LIMITS}
