"""What the model roles are told, by domain: one module each, chosen by exact name (``domain`` of params.yaml).

A stage that asks for ``wording(domain)`` depends on that domain's file alone (``scalequest/domains/${domain}.py`` in dvc.yaml): a
changed word in the prompts for code reruns nothing of a mathematics run.
"""

from importlib import import_module
from typing import Protocol, cast

SOLVABILITY, DIFFICULTY = "solvability", "difficulty"

DOMAINS = ("maths", "code")


class Wording(Protocol):
    """The functions that every domain's module has."""

    def solve_prompt(self, question: str) -> str:
        """Ask for a worked solution."""

    def judge_turns(self, question: str, style: str) -> list[str]:
        """Ask whether a question can be solved: the turns of a conversation, the user's first and last."""

    def rewrite_turns(self, question: str, direction: str, style: str) -> list[str]:
        """Ask for a rewrite that improves one thing: the turns of a conversation, the user's first and last."""

    def leaks_solution(self, question: str) -> bool:
        """Whether a question holds its own solution or answer."""

    def asks(self, question: str) -> bool:
        """Whether a text asks for something."""


def wording(domain: str) -> Wording:
    """The prompts of one domain."""
    assert domain in DOMAINS, domain  # params.py has checked it
    return cast(Wording, import_module(f"scalequest.domains.{domain}"))
