import pytest

from scalequest.io import read_jsonl
from scalequest.problems.contamination import SEEDS_OF_A_PHRASE, Contamination, Match, set_phrases, without_phrases
from tests.fakes import real_data

SUM = {"id": "exam/0", "question": "What is 17 + 25?"}
DIVISORS = {"id": "exam/1", "question": "How many positive divisors does 196 have?"}
FACTORIAL = {"id": "exam/2", "question": "What is 5!?"}
FORMULA = {"id": "exam/3", "question": "$2 + 3$"}
CLIPS = {
    "id": "exam/4",
    "question": "Natalia sold clips to 48 of her friends in April, and then she sold half as many clips in May.",
}


def found(item: dict[str, str], text: str, n: int = 13) -> bool:
    return Contamination([item], n).match(text) is not None


@pytest.mark.parametrize(
    ("item", "text"),
    [
        pytest.param(SUM, "what is 17+25", id="as_a_whole"),
        pytest.param(SUM, "Tom asks: What is 17 + 25?", id="at_the_end"),
        pytest.param(SUM, "What is 17 + 25? Explain.", id="at_the_start"),
        pytest.param(SUM, "Tom is new. What is 17 + 25? He does not know.", id="in_the_middle"),
        pytest.param(SUM, "**What is 17 + 25?**", id="bold"),
        pytest.param(SUM, "(What is 17 + 25?)", id="in_brackets"),
        pytest.param(SUM, 'Tom: "What is 17+25"', id="quoted"),
        pytest.param(SUM, "What is 17 + 25\nThink.", id="on_its_own_line"),
        pytest.param(SUM, "Tom, what is 17 + 25, please?", id="before_a_comma"),
        pytest.param(SUM, "What is 17\u200b + 25?", id="zero_width_space"),
        pytest.param(SUM, "Say: what\u200bis\u200b17 + 25?", id="zero_width_for_a_space"),
        pytest.param(SUM, "Say: wh\u00adat is 17 + ２５?", id="soft_hyphen_and_full_width"),
        pytest.param(DIVISORS, "Question: How many positive divisors does 196 have?", id="the_published_hole"),
        pytest.param(FACTORIAL, "Say it: what is 5!?", id="factorial"),
        pytest.param(FORMULA, "Compute $2+3$.", id="formula_after_a_word"),
        pytest.param(CLIPS, "x " + CLIPS["question"].replace("Natalia", "Nata\u200blia") + " y", id="hidden_in_a_word"),
        pytest.param(CLIPS, CLIPS["question"].replace(" ", "\u200b"), id="zero_width_for_every_space"),
    ],
)
def test_a_benchmark_question_is_found_in_another_text(item: dict[str, str], text: str):
    assert found(item, text)


# What one side writes with LaTeX's markup, and the other without or with another.
MARKED = [
    ("What is 17 + 25?", "What is $17 + 25$?"),
    ("What is 17 + 25?", "Tom: what is $17{+}25$?"),
    ("What is 17 + 25?", "Tom: what is ${17} + {25}$?"),
    ("What is 17 + 25?", "Tom: what is \\(17\\,+\\,25\\)?"),
    ("What is 17 + 25?", "Tom: what is \\[17 \\; + \\quad 25\\]?"),
    ("What is 17 + 25?", "Tom: what is $\\displaystyle 17 + 25$?"),
    ("What is (17 + 25)^2?", "Tom: what is $\\left(17 + 25\\right)^2$?"),
    ("What is 17 + 25?", "Tom: what is $\\text{17} + \\mathrm{25}$?"),
    ("What is $3 \\cdot 4$?", "Tom: what is 3 \u00d7 4?"),
    ("What is $3 \\cdot 4$?", "Tom: what is $3 \\times 4$?"),
    ("What is $12 \\div 4$?", "Tom: what is 12 \u00f7 4?"),
    ("What is $\\frac{1}{2} + \\frac{1}{3}$?", "Tom: what is 1/2 + 1/3?"),
    ("What is $\\frac{1}{2} + \\frac{1}{3}$?", "Tom: what is $\\dfrac12 + \\tfrac13$?"),
    ("What is $\\frac{1}{2} + \\frac{1}{3}$?", "Tom: what is \u00bd + \u2153?"),
    ("What is $x^{2} + 1$?", "Tom: what is x^2+1?"),
    ("What is $x^{2} + 1$?", "Tom: what is x\u00b2 + 1?"),
    ("What is $x_{1} + 1$?", "Tom: what is x_1 + 1?"),
    ("What is $\\sqrt{2} + 1$?", "Tom: what is sqrt(2) + 1?"),
    ("What is $\\sqrt{2} + 1$?", "Tom: what is \u221a2 + 1?"),
    ("What is $\\pi/4 + 1$?", "Tom: what is \u03c0/4 + 1?"),
    ("What is 1,000 + 1?", "Tom: what is $1{,}000 + 1$?"),
    ("What is 1,000 + 1?", "Tom: what is $1\\,000 + 1$?"),
    ("What is 10% of 50?", "Tom: what is $10\\%$ of $50$?"),
    ("Is $x \\leq 3$ or $x \\geq 5$?", "Tom: is x \u2264 3 or x >= 5?"),
    ("What is $1 + 2 + \\dots + 9$?", "Tom: what is 1 + 2 + ... + 9?"),
    ("How big is an angle of $30^\\circ$?", "Tom: how big is an angle of 30\u00b0?"),
    ("Find the sum of $\\{1, 2, 3\\}$.", "Find the sum of {1, 2, 3}."),
    (
        CLIPS["question"],
        "x " + CLIPS["question"].replace("clips", "\\textbf{clips}").replace("friends", "$\\text{friends}$"),
    ),
]


@pytest.mark.parametrize(("item", "text"), MARKED)
def test_markup_hides_nothing(item: str, text: str):
    assert found({"id": "x", "question": item}, text)
    assert found({"id": "x", "question": text.removeprefix("Tom: ")}, item)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        ("What is $x^{2}3$?", "What is $x^{23}$?"),
        ("What is $\\frac{1}{23}$?", "What is $\\frac{12}{3}$?"),
        ("What is $\\frac{1}{2} + 3$?", "What is $12 + 3$?"),
        ("What is $17 + 25$?", "What is $17 + 25 + 3$?"),
        ("What is $17 + 25$?", "What is $17{-}25$?"),
        ("What is $\\frac{a+b}{2}$?", "What is a + b/2?"),
        ("What is $1{,}000 + 1$?", "What is 1,0001?"),
    ],
)
def test_markup_that_means_something_keeps_questions_apart(item: str, text: str):
    assert not found({"id": "x", "question": item}, text)
    assert not found({"id": "x", "question": text}, item)


@pytest.mark.parametrize(
    ("item", "text"),
    [
        pytest.param(SUM, "What is 17 + 25 + 3?", id="more_terms"),
        pytest.param(SUM, "What is 17 + 25.5?", id="more_digits"),
        pytest.param(SUM, "What is 17 + 253?", id="a_longer_number"),
        pytest.param(SUM, "What is 17 - 25?", id="another_sign"),
        pytest.param(SUM, "What is 17 + 25 in words?", id="more_words"),
        pytest.param(FACTORIAL, "Say it: what is 5?", id="no_factorial"),
        pytest.param(FACTORIAL, "What is 5! + 1?", id="more_than_the_factorial"),
        pytest.param(FORMULA, "Compute $1 * 2 + 3$.", id="part_of_a_formula"),
        pytest.param(DIVISORS, "How many positive divisors does 192 have?", id="another_number"),
        pytest.param({"id": "x", "question": "Why?"}, "Why? Because. How many are there?", id="too_short_to_look_for"),
    ],
)
def test_another_question_is_not_found(item: dict[str, str], text: str):
    assert not found(item, text)


def test_a_match_names_the_item_and_the_span():
    index = Contamination([SUM, CLIPS], 13)
    assert index.match("Tom asks: What is 17 + 25?") == ("exam/0", "What is 17 + 25")
    run = "natalia sold clips to 48 of her friends in april and then she"
    assert index.matches(f"What is 17 + 25? {CLIPS['question']}") == [Match("exam/4", run), Match("exam/0", "What is 17 + 25")]  # fmt: skip


def test_items_that_share_a_run_are_all_found():
    twin = CLIPS | {"id": "exam/5"}
    assert [m.item for m in Contamination([CLIPS, twin], 13).matches(CLIPS["question"])] == ["exam/4", "exam/5"]


def test_a_set_phrase_of_three_items_is_no_leak():
    phrase = "express your answer in the form a b where a and b are whole numbers and b is as small as possible"
    items = [
        {"id": f"exam/{at}", "question": f"{start} {phrase}"}
        for at, start in enumerate(
            (
                "Simplify the square root of seventy two and",
                "Simplify the root of 98 and then",
                "What is the root of 8 times 6?",
            )
        )
    ]
    text = f"Let x be the root of 300. {phrase}"
    assert Contamination(items[:2], 13).match(text)
    assert Contamination(items, 13).match(text) is None
    # The items themselves are found by their own words, and copies of one item do not make its words a set phrase.
    assert [Contamination(items, 13).match(f"{item['question']} Explain.")[0] for item in items] == [
        i["id"] for i in items
    ]
    copies = [CLIPS | {"id": f"copy/{at}"} for at in range(5)]
    assert Contamination(copies, 13).match("x " + CLIPS["question"])
    # An item of nothing but set phrases keeps them.
    assert Contamination([*items, {"id": "exam/9", "question": phrase}], 13).match(text) == (
        "exam/9",
        " ".join(phrase.split()[:13]),
    )


# The end of one item of MATH-500 and of dozens of MATH's training questions.
PHRASE = "where m and n are relatively prime positive integers. Find m + n."
DIE = {
    "id": "exam/6",
    "question": "When rolling a certain unfair die with faces numbered 1 to 6, the probability of obtaining face F is greater "
    "than 1/6, that of the face opposite is less than 1/6, and that of each of the other faces equals 1/6. When two such "
    f"dice are rolled, the probability that the sum is 7 is 47/288. The probability of face F is m/n, {PHRASE}",
}
THINGS = ["circle", "cone", "grid", "coin", "hexagon", "list", "polygon", "card", "path", "tower", "square", "line"]
# Seeds with the phrase and nothing else in common.
PHRASED = [f"Some {name} is drawn at random from {len(name)} others. Its share is m/n, {PHRASE}" for name in THINGS]
ASKED = f"A point is chosen inside a cube. The chance that it is near a corner is m/n, {PHRASE}"


def phrases_of(items: list[dict[str, str]], n: int, seeds: list[str]) -> frozenset[tuple[str, str]]:
    return set_phrases(Contamination(items, n), items, seeds)


def caught(text: str, seeds: list[str], item: dict[str, str] = DIE) -> bool:
    return Contamination([item], 13, phrases_of([item], 13, seeds)).match(text) is not None


def test_a_set_phrase_of_many_seeds_is_no_leak():
    assert caught(ASKED, [])
    assert caught(ASKED, PHRASED[: SEEDS_OF_A_PHRASE - 1])
    assert not caught(ASKED, PHRASED[:SEEDS_OF_A_PHRASE])
    # The same seed in other spellings is one.
    assert caught(ASKED, [PHRASED[0], PHRASED[0].upper(), PHRASED[0] + " "] * 10)


def test_an_item_with_a_set_phrase_is_found_by_its_other_words():
    tokens = DIE["question"].split()
    assert caught(DIE["question"], PHRASED)
    assert caught(f"Tom reads: {DIE['question']} Explain.", PHRASED)
    assert caught(" ".join(tokens[:20]), PHRASED)
    # Of the item's last twenty words, seven are no phrase.
    assert caught(" ".join(tokens[-24:]), PHRASED)


LEAKS = {
    "whole": lambda n: f"{DIE['question']} Version {n}.",
    "with_other_numbers": lambda n: DIE["question"].replace("288", str(300 + n)).replace("1/6", f"{n}/9").replace("7", str(n)),
    "with_another_end": lambda n: f"{DIE['question'].removesuffix(PHRASE)} What is its {THINGS[n]} then?",
    "first_half": lambda n: f"{' '.join(DIE['question'].split()[:38])} is what {THINGS[n]}?",
    "thirty_words": lambda n: f"{THINGS[n]}: {' '.join(DIE['question'].split()[5:36])} {THINGS[n]}",
    "every_twentieth_word_another": lambda n: " ".join(
        THINGS[n] if at % 20 == n else word for at, word in enumerate(DIE["question"].split())
    ),
}  # fmt: skip


@pytest.mark.parametrize("leak", LEAKS)
def test_copies_among_the_seeds_hide_no_leak(leak: str):
    copies = [LEAKS[leak](n) for n in range(len(THINGS))]
    assert len(set(copies)) > SEEDS_OF_A_PHRASE
    assert phrases_of([DIE], 13, copies) == frozenset()
    # Neither in questions nor in the seeds themselves, beside seeds that do have a set phrase.
    index = Contamination([DIE], 13, phrases_of([DIE], 13, [*copies, *PHRASED]))
    assert index.match(ASKED) is None
    assert all(index.match(text) for text in [*copies, DIE["question"], " ".join(DIE["question"].split()[4:40])])


def test_seeds_of_an_items_template_hide_nothing():
    template = (
        "{} collects garbage from {} different apartment complexes. The first ones have {} apartments each and the last is {}% "
        "bigger. {} gets paid {} dollars {} times a week for each apartment. How much money is that in a week with one day off?"
    )  # fmt: skip
    names = ("Ann", "Tom", "Wei", "Nia", "Max", "Ida")
    texts = [template.format(names[n % 6], n, 50 * n, n + 7, names[n % 6], n % 5, n + 2) for n in range(3, 60)]
    item = {"id": "exam/8", "question": texts[0]}
    assert caught(texts[1], [], item)
    assert caught(texts[1], texts[2:], item)


def test_an_item_of_nothing_but_set_phrases_keeps_its_runs():
    runs = {"a": ["x", "y"], "b": ["x"], "c": ["y"]}
    assert without_phrases(runs, {("a", "x"), ("b", "x"), ("a", "y")}) == {"a": ["x"], "b": ["x"], "c": ["y"]}
    short = {"id": "exam/9", "question": f"Some number is m/n, {PHRASE}"}
    assert caught(ASKED.replace("near a corner", "even"), PHRASED, short)


def test_what_is_set_aside_is_known():
    index = Contamination([DIE, CLIPS], 13, phrases_of([DIE, CLIPS], 13, PHRASED))
    assert index.set_aside == [
        ("is m n where m and n are relatively prime positive integers find", "exam/6"),
        ("m n where m and n are relatively prime positive integers find m", "exam/6"),
        ("n where m and n are relatively prime positive integers find m n", "exam/6"),
    ]
    assert Contamination([DIE, CLIPS], 13).set_aside == []
    assert phrases_of([DIE], 0, PHRASED) == phrases_of([], 13, PHRASED) == phrases_of([SUM], 13, PHRASED) == frozenset()


def test_a_run_of_zero_words_finds_nothing():
    assert not found(SUM, SUM["question"], n=0)


@pytest.mark.parametrize(
    ("benchmark", "train", "items"),
    [("math500/test.jsonl", "math/train.jsonl", 58), ("gsm8k/test.jsonl", "gsm8k/train.jsonl", 3)],
)
def test_test_items_that_share_thirteen_words_with_published_training_sets(benchmark: str, train: str, items: int):
    tests = [{"id": r["id"], "question": r["question"]} for r in read_jsonl(real_data(benchmark))]
    index = Contamination(tests, 13)
    touched = {
        m.item for r in read_jsonl(real_data(train)) for m in index.matches(r["question"]) if m.span.count(" ") == 12
    }
    assert len(touched) == items
