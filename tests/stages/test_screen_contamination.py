"""Stage `screen`: what of a benchmark is found in generated questions."""

import pytest

from scalequest.problems.contamination import Contamination
from scalequest.problems.shingles import jaccard, shingles
from stages.screen import screen
from tests.stages.test_screen import EXAM, STORY, question, settings, verdicts

# ------------------------------------------------------------------------------------------------------- contamination

SHORT_EXAM = "What is 17 + 25?"


def test_thirteen_words_in_a_row_of_a_benchmark_contaminate():
    run = "natalia sold clips to 48 of her friends in april and then she"
    assert len(run.split()) == 13
    rows = [
        question(0, f"Once {run.upper()} left. How much?"),
        question(1, " ".join(run.split()[:12]) + " left. How much?"),
    ]
    screened = screen(rows, [{"id": "exam/7", "question": EXAM}], settings(decontaminate_ngram=13))
    assert (screened[0]["verdict"], screened[0]["matched"], screened[0]["evidence"]) == ("contaminated", "exam/7", run)
    # Twelve words in a row are no match.
    assert screened[1]["verdict"] == "kept"


@pytest.mark.parametrize(
    "text", ["{} It is long.", "Listen: {}", "Listen: {} It is long."], ids=["first", "last", "inside"]
)
def test_a_benchmark_question_of_just_thirteen_words_is_found_anywhere(text: str):
    exam = "A farmer has nine cows and seven hens, how many legs has he?"
    assert len(exam.split()) == 13
    assert verdicts(text.format(exam), benchmark=(exam,), decontaminate_ngram=13) == ["contaminated"]


def test_a_short_benchmark_question_is_found_inside_a_longer_text():
    texts = ["what is 17+25", "What is 17 + 25 + 3?", "Tom asks: What is 17 + 25?"]
    assert verdicts(*texts, benchmark=(SHORT_EXAM,), decontaminate_ngram=13) == ["contaminated", "kept", "contaminated"]


def test_invisible_characters_hide_neither_a_duplicate_nor_a_leak():
    text, hidden = "What is 3 + 4 in words?", "What is 3\u200b + 4 in words?"
    assert verdicts(text, hidden) == ["kept", "exact_duplicate"]
    assert verdicts(hidden, benchmark=(text,), decontaminate_ngram=13) == ["contaminated"]
    assert verdicts(STORY, STORY.replace("Tom", "T\u200bom") + " Now", near_duplicate_jaccard=0.85) == [
        "kept",
        "near_duplicate",
    ]


def test_a_whole_match_names_the_question():
    screened = screen(
        [question(0, SHORT_EXAM)], [{"id": "exam/0", "question": SHORT_EXAM}], settings(decontaminate_ngram=13)
    )
    assert (screened[0]["matched"], screened[0]["evidence"]) == ("exam/0", SHORT_EXAM)


def test_punctuation_and_case_do_not_hide_a_match():
    text = "NATALIA sold -- clips, to 48 (of) her friends; in April! And then: she sold half."
    assert verdicts(text, benchmark=(EXAM,), decontaminate_ngram=13) == ["contaminated"]


def test_zero_turns_decontamination_off():
    assert verdicts(EXAM, SHORT_EXAM, benchmark=(EXAM, SHORT_EXAM), decontaminate_ngram=0) == ["kept", "kept"]
    assert Contamination([{"id": "x", "question": EXAM}], 0).match(EXAM) is None


def test_a_contaminated_question_does_not_stand_for_its_clean_neighbours():
    # The second is near the first and has no run of 13 words: it must not go as a duplicate of what is thrown away.
    clean = EXAM.replace("April", "June").replace("her friends", "my friends")
    assert jaccard(shingles(EXAM), shingles(clean)) > 0.4
    assert verdicts(EXAM, clean, near_duplicate_jaccard=0.4) == ["kept", "near_duplicate"]
    assert verdicts(EXAM, clean, benchmark=(EXAM,), decontaminate_ngram=13, near_duplicate_jaccard=0.4) == [
        "contaminated",
        "kept",
    ]
