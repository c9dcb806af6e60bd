"""What makes two texts the same question."""

import re


def question_key(question: str) -> str:
    """What makes two questions exact duplicates: letters, digits and signs; case, spaces and final punctuation aside."""
    return re.sub(r"\s+", "", question).lower().rstrip(".?!:")
