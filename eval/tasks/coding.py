"""What the code tasks share: the prompt that training used, and the benchmark's own tests, run in the sandbox."""

from scalequest.answers import RIGHT, TIMEOUT
from scalequest.checks import run_tests
from scalequest.domains.code import solve_prompt
from scalequest.programs import any_code, fenced_code


def doc_to_text(doc):
    return solve_prompt(doc["question"])


def process_results(doc, results):
    completion = results[0]
    strict, flexible = fenced_code(completion), any_code(completion)
    strict_outcome, flexible_outcome = run_tests([doc["answer"]] * 2, [strict, flexible])
    return {
        "strict": float(strict_outcome == RIGHT),
        "flexible": float(flexible_outcome == RIGHT),
        "unparsed": float(flexible is None),
        "timeout": float(TIMEOUT in (strict_outcome, flexible_outcome)),
    }
