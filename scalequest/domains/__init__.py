"""What is asked of the model roles, by domain: one module each, chosen by exact name (``domain`` of params.yaml).

A domain is one file here: its prompts, its rule of what a question may hold, and the kind of answer
that it expects. The kinds are in ``scalequest/answers/check.py``; a domain whose answers are
compared as those of another needs no other file.

A stage that asks for ``wording(domain)`` depends on that domain's file alone (``scalequest/domains/${domain}.py`` in dvc.yaml): a
changed word in the prompts for code reruns nothing of a mathematics run.
"""

from collections.abc import Mapping, Sequence
from importlib import import_module
from pkgutil import iter_modules
from typing import Protocol, cast

# What a preference pair is to improve; GIVEN: a user's pair, which nobody rewrote.
SOLVABILITY, DIFFICULTY, GIVEN = "solvability", "difficulty", "given"

# How an answer is asked for (`respond.form`): worked out, short, or as a program that computes it.
WORKED, SHORT, PROGRAM = "worked", "short", "program"
# The name that a program's function is asked to have (TinyGSM's), and the kind of such answers in `answers.check.KINDS`.
FUNCTION = "simple_math_problem"
PROGRAMS = "program"

DOMAINS = tuple(sorted(module.name for module in iter_modules(__path__)))
# Whose benchmarks have plain answers, which are compared as mathematics.
PLAIN = "maths"


class Wording(Protocol):
    """What every domain's module has.

    Attributes:
        ANSWERS: kind of its answers, a key of ``answers.check.KINDS``.
        SEEDS_NEED_ANSWERS: whether a seed without an answer is left out. Otherwise its question teaches a generator all the same,
            only its difficulty has no label.
    """

    ANSWERS: str
    SEEDS_NEED_ANSWERS: bool

    def solve_prompt(self, question: str, form: str = WORKED) -> str:
        """Ask for a worked solution, a short one, or, in mathematics, a program."""

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


def kind_of_answers(words: Wording, form: str) -> str:
    """The kind of the answers to what is asked in a form, a key of ``answers.check.KINDS``."""
    return PROGRAMS if form == PROGRAM else words.ANSWERS


def judge_conversation(templates: Mapping[str, str], examples: Sequence[str], question: str, style: str) -> list[str]:
    """Ask whether a question can be solved (after the paper's Fig. 12, in our words).

    Args:
        templates: of each style that asks in one turn; ``{question}`` is filled in.
        examples: turns that show the task, for the style ``few_shot``.
        question: to judge.
        style: ``judge.style``.

    Returns:
        The turns of a conversation, the user's first and last, the model's between.
    """
    return [*examples, question] if style == "few_shot" else [templates[style].format(question=question)]


def rewrite_conversation(
    templates: Mapping[tuple[str, str], str],
    examples: Mapping[str, Sequence[tuple[str, str]]],
    question: str,
    direction: str,
    style: str,
) -> list[str]:
    """Ask for a rewrite that improves one thing (after the paper's Figs 10 and 11, in our words).

    Args:
        templates: by style and direction; ``{question}`` is filled in.
        examples: by direction, questions and their rewrites, for the style ``few_shot``.
        question: to rewrite.
        direction: SOLVABILITY or DIFFICULTY.
        style: ``preferences.style``.

    Returns:
        The turns of a conversation, the user's first and last, the model's between.
    """
    template = templates[style, direction]
    shown = examples[direction] if style == "few_shot" else []
    turns = [turn for before, after in shown for turn in (template.format(question=before), after)]
    return [*turns, template.format(question=question)]
