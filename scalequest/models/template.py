"""A chat template is a program that a model brings. It is tried once in a process with limits before it runs in ours.

No limit can be complete: a template that waits for a certain question to misbehave passes this trial.
"""

import json
import subprocess
import sys
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from scalequest.errors import UserError

MAX_TEMPLATE = 1 << 20  # characters; the longest of published models has about 20,000
CPU_S = 5
MEMORY_BYTES = 1 << 30
# Characters that a template may make of two short questions and an answer.
MAX_TEXT = 1 << 20
# Until a busy machine has given the trial its five seconds.
WALL_S = 120.0
_CHILD = Path(__file__).with_name("template_child.py")


def check_templates(name: str, templates: Sequence[str], variables: dict[str, str]) -> None:
    """Render the templates of a model in a process with limits.

    Args:
        name: of the model, for messages.
        templates: all that its tokenizer has.
        variables: the special tokens by name (``bos_token``), as the tokenizer hands them to a template.

    Raises:
        UserError: a template takes too long, too much memory, or writes too much. What else is wrong is left to its caller.
    """
    for template in templates:
        if len(template) > MAX_TEMPLATE:
            reason = f"it has {len(template):,} characters"
        else:
            reason = _trial(template, tuple(sorted(variables.items())))
        if reason:
            raise UserError(
                f"{name}: its chat template is refused: {reason}. Expected a template that renders in {CPU_S} s and "
                f"{MEMORY_BYTES >> 20} MiB. Do not use this model, or choose another template: chat_templates: {{ROLE: alpaca}}"
            )


@lru_cache(maxsize=64)
def _trial(template: str, variables: tuple[tuple[str, str], ...]) -> str:
    """What the template did wrong; empty where it kept to the limits."""
    limits = {"cpu_s": CPU_S, "memory": MEMORY_BYTES, "text": MAX_TEXT}
    given = json.dumps({"template": template, "variables": dict(variables), "limits": limits})
    try:
        result = subprocess.run(
            [sys.executable, "-I", str(_CHILD)], input=given.encode(), capture_output=True, check=False, timeout=WALL_S
        )
    except subprocess.TimeoutExpired:
        return f"it did not end within {WALL_S:.0f} s"
    if result.returncode == 0:
        return result.stdout.decode().strip()
    if result.returncode < 0:
        return f"it did not end within {CPU_S} s of computing"
    return "it ended its process" if not result.stderr else f"it broke its process ({result.stderr.decode(errors='replace').strip()[-200:]})"  # fmt: skip
