"""What the mathematics tasks share: the prompt that training used, and one home for answers (scalequest.answers)."""

from scalequest.answers.compare import compare
from scalequest.answers.find import flexible_answer, strict_answer
from scalequest.domains.maths import solve_prompt
from scalequest.evaluation import item_scores


def doc_to_text(doc):
    return solve_prompt(doc["question"])


def process_results(doc, results):
    return item_scores(compare, doc["answer"], strict_answer(results[0]), flexible_answer(results[0]))
