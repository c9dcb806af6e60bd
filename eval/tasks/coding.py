"""What the code tasks share: the prompt that training used, and the benchmark's own tests, run in the sandbox."""

from scalequest.answers.check import run_tests
from scalequest.answers.code import any_code, fenced_code
from scalequest.domains.code import solve_prompt
from scalequest.evaluation import item_scores


def doc_to_text(doc):
    return solve_prompt(doc["question"])


def process_results(doc, results):
    return item_scores(run_tests, doc["answer"], fenced_code(results[0]), any_code(results[0]))
