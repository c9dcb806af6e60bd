"""One problem, and the form in which its solution is taught."""

import re

from scalequest.answers.find import boxed

Problem = dict[str, str]  # id, source, stratum, question, solution, answer: records.PROBLEM


def benchmark_row(problem: Problem) -> Problem:
    """What of a problem goes into a test set; its stratum where it has one, for draws by ``evaluate.limit``."""
    keys = ("id", "question", "answer", *(["stratum"] if problem.get("stratum") else []))
    return {key: problem[key] for key in keys}


def worked_solution(solution: str, answer: str, calculator_marks: bool = False) -> str:
    """A solution in the form that the solver is taught: GSM8K's ``####`` line gone, answer boxed.

    Its calculator marks (``<<48/2=24>>``) go as well, unless ``calculator_marks`` keeps them.
    """
    text = solution if calculator_marks else re.sub(r"<<[^<>]*>>", "", solution)
    text = re.sub(r"\n?####.*\s*$", "", text).strip()
    return text if boxed(text) else f"{text}\nThe answer is \\boxed{{{answer}}}.".strip()


def new_problem(name: str, row: str, question: str, solution: str, answer: str, stratum: str = "") -> Problem:
    """A problem of the source ``name``; ``row`` is its number there, ``stratum`` its subject if it has one."""
    return {
        "id": f"{name}/{row}",
        "source": name,
        "stratum": stratum,
        "question": question,
        "solution": solution,
        "answer": answer,
    }
