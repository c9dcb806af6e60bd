"""What the tasks share: the prompt that training used, and one home for answers (scalequest.answers), by the item's domain."""

from scalequest.answers.check import KINDS
from scalequest.domains import wording
from scalequest.evaluation import item_scores


def doc_to_text(doc):
    return wording(doc["domain"]).solve_prompt(doc["question"])


def process_results(doc, results):
    kind = KINDS[wording(doc["domain"]).ANSWERS]
    return item_scores(kind.outcomes, doc["answer"], kind.strict(results[0]), kind.flexible(results[0]))
