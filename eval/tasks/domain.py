"""What the tasks share: the prompt that training used, and one home for answers (scalequest.answers), by the item's domain."""

from scalequest.answers.check import KINDS
from scalequest.answers.program import read_program
from scalequest.domains import PROGRAM, WORKED, kind_of_answers, wording
from scalequest.evaluation import item_scores
from scalequest.outcomes import TIMEOUT


def doc_to_text(doc):
    return wording(doc["domain"]).solve_prompt(doc["question"], doc.get("form", WORKED))


def process_results(doc, results):
    form = doc.get("form", WORKED)
    kind = KINDS[kind_of_answers(wording(doc["domain"]), form)]
    scores = item_scores(kind.outcomes, doc["answer"], kind.strict(results[0]), kind.flexible(results[0]))
    if form == PROGRAM and read_program(results[0]).outcome == TIMEOUT:
        scores["timeout"] = 1.0
    return scores
