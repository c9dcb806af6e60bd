"""What the mathematics tasks share: the prompt that training used, and one home for answers (scalequest.answers)."""

from scalequest.answers import RIGHT, TIMEOUT, compare, flexible_answer, strict_answer
from scalequest.domains.maths import solve_prompt


def doc_to_text(doc):
    return solve_prompt(doc["question"])


def process_results(doc, results):
    completion = results[0]
    strict, flexible = strict_answer(completion), flexible_answer(completion)
    strict_outcome, flexible_outcome = compare([doc["answer"]] * 2, [strict, flexible])
    return {
        "strict": float(strict_outcome == RIGHT),
        "flexible": float(flexible_outcome == RIGHT),
        "unparsed": float(flexible is None),
        "timeout": float(TIMEOUT in (strict_outcome, flexible_outcome)),
    }
