"""What must hold between the tables of a run, and between a table and the numbers that its stage reports."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Rule:
    """The ids of one table are those of the next: all of them, or (``subset``) at least none that the first does not have."""

    left: str
    right: str
    says: str
    left_where: str = ""
    right_where: str = ""
    left_id: str = "id"
    right_id: str = "id"
    subset: bool = False

    @property
    def right_name(self) -> str:
        """The second table as messages call it: what the filters passed on is a file called filtered."""
        return "filtered" if self.right == "passed" else self.right


KEPT = "WHERE verdict = 'kept'"
RULES = (
    Rule("questions", "screened", "screen gives every generated question a verdict"),
    Rule("screened", "judged", "the judge reads what screen kept", left_where=KEPT),
    Rule("screened", "difficulty", "what screen kept is scored", left_where=KEPT),
    Rule("screened", "ledger", "the ledger holds every question"),
    Rule("ledger", "passed", "what the ledger calls kept is passed on", left_where="WHERE outcome = 'kept'"),
    Rule("filtered", "responses", "every kept question is answered", right_id="question_id", right_where="WHERE sample = 0"),
    Rule("responses", "rewards", "every response is scored"),
    Rule("filtered", "instruct", "a training row is a kept question", subset=True),
)  # fmt: skip
# Numbers of the metrics files that are counts of rows.
METRICS = (
    ("seeds", "problems", "seeds", ""),
    ("generate", "questions", "questions", ""),
    ("own_questions", "questions", "questions", ""),
    ("screen", "questions", "screened", ""),
    ("screen", "kept", "screened", KEPT),
    ("judge", "questions", "judged", ""),
    ("judge", "solvable", "judged", "WHERE verdict = 'solvable'"),
    ("difficulty", "questions", "difficulty", ""),
    ("filter", "generated", "ledger", ""),
    ("filter", "kept", "passed", ""),
    ("respond", "responses", "responses", ""),
    ("reward", "responses", "rewards", ""),
    ("reward_select", "questions", "filtered", ""),
    ("reward_select", "kept", "instruct", ""),
    ("reward_select", "rows", "instruct", ""),  # where a question has several
)
