"""What is asked of the model roles in a mathematics run, after the paper's prompts (Figs 10 to 12), in our words."""

import re

from scalequest.domains import (
    DIFFICULTY,
    FUNCTION,
    PROGRAM,
    SHORT,
    SOLVABILITY,
    WORKED,
    judge_conversation,
    rewrite_conversation,
)
from scalequest.signs import plain

ANSWERS = "maths"
SEEDS_NEED_ANSWERS = True

# ------------------------------------------------------------------------------------------------------------- solving


_SOLVE = {
    # The Qwen-Math instruction that the paper's responder gets.
    WORKED: "Please reason step by step, and put your final answer within \\boxed{}.",
    # As long as GSM8K's own solutions. A small student learns little from long, talkative answers.
    SHORT: "Please solve it in few short lines, one calculation per line, without headings or explanations, and put your final "
    "answer within \\boxed{}.",
    PROGRAM: f"Please write a Python function `{FUNCTION}()` without arguments that computes the answer step by step and returns it "
    "as a number. Write only the function, in one ```python block, without explanations.",
}


def solve_prompt(question: str, form: str = WORKED) -> str:
    """Ask for a worked solution, for a short one, or for a program that returns the answer (``respond.form``)."""
    return f"{question}\n{_SOLVE[form]}"


def _program(*lines: str) -> str:
    """A response with one function of these lines."""
    body = "\n".join(f"    {line}" for line in lines)
    return f"```python\ndef {FUNCTION}():\n{body}\n```"


# Shown to the base before a benchmark's question (`evaluate.few_shot`), because seeds have no
# programs; after PAL (Gao et al. 2023).
SOLVED_PROGRAMS = [
    (
        "Ann has 12 stickers and buys 3 packs of 5. How many stickers does she have now?",
        _program("stickers = 12", "bought = 3 * 5", "result = stickers + bought", "return result"),
    ),
    (
        "A shirt costs $40 and is sold at a discount of 15%. How much does it cost now?",
        _program("price = 40", "discount = price * 15 / 100", "result = price - discount", "return result"),
    ),
    (
        "Tom reads 20 pages per day. His book has 340 pages, and he has read 100. How many days does he need for the rest?",
        _program("left = 340 - 100", "pages_per_day = 20", "result = left / pages_per_day", "return result"),
    ),
    (
        "A farmer has twice as many hens as ducks, and 36 birds in all. How many hens does he have?",
        _program("birds = 36", "ducks = birds / (2 + 1)", "result = 2 * ducks", "return result"),
    ),
    (
        "Mia earns $9 per hour and works 6 hours on each of 5 days. She spends $70. How much money is left?",
        _program("hours = 6 * 5", "earned = 9 * hours", "result = earned - 70", "return result"),
    ),
    (
        "A tank holds 90 liters. A pump fills it at 4 liters per minute while 1 liter per minute leaks out. How many minutes does it take?",
        _program("tank = 90", "liters_per_minute = 4 - 1", "result = tank / liters_per_minute", "return result"),
    ),
    (
        "Ben is 4 years older than Eva. In 6 years they will be 30 years old together. How old is Ben now?",
        _program("together = 30 - 2 * 6", "eva = (together - 4) / 2", "result = eva + 4", "return result"),
    ),
    (
        "A class of 28 pupils goes to the zoo. Tickets are $6 each, and every seventh is free. How much do the tickets cost?",
        _program("pupils = 28", "free = pupils // 7", "result = (pupils - free) * 6", "return result"),
    ),
]


# ------------------------------------------------------------------------------------------------------------- judging

_JUDGE = {
    "reasoned": """You are a careful mathematics teacher. A student hands you the following text:

{question}

Decide whether it is a mathematics problem that can be solved. Go through these points:
1. Is it a mathematics problem at all?
2. Are all the conditions given that a solution needs, and do they agree with each other?
3. Try to solve it, if that helps you to tell.
Write down your reasoning briefly. Then end with one last line that is only "Yes" if it can be solved, or "No" if not.""",
}
# A conversation that shows the task, turn about: a model of 135M parameters follows examples, not instructions.
_JUDGE_EXAMPLES = [
    "You check math questions. Answer Yes if a question can be solved, No if not. First question: What is 3 + 4?", "Yes",
    "Where is the blue house?", "No",
    "Ann has 2 cats and 3 dogs. How many pets does Ann have?", "Yes",
    "Tom has some apples. How many are red?", "No",
    "What is 20 / 5?", "Yes",
    "After 50 tents in 8 hours.", "No",
    "A car goes 30 miles an hour. How far does it go in 2 hours?", "Yes",
    "What is 9 * +?", "No",
    "How many legs do 3 dogs have?", "Yes",
]  # fmt: skip


def judge_turns(question: str, style: str) -> list[str]:
    """Ask whether a question can be solved, in the turns of a conversation."""
    return judge_conversation(_JUDGE, _JUDGE_EXAMPLES, question, style)


# ----------------------------------------------------------------------------------------------------------- rewriting

_REWRITE = {
    ("sections", SOLVABILITY): """You are a mathematics teacher who prepares exercises. Below is a draft:

{question}

Make sure that it is a sound exercise. Work in three sections with exactly these headers:
CREATED QUESTION: repeat the draft; if it is not a mathematics question, or makes no sense, write a new one instead; if it \
is very short, add the detail it lacks.
VERIFICATION AND MODIFICATION: solve it, check your solution, and repair every condition that is missing, contradictory or \
against common sense. It must ask for one thing, have a numeric answer, stand by itself, and hold no part of its solution.
FINAL QUESTION: the exercise alone.""",
    ("sections", DIFFICULTY): """You rewrite mathematics questions so that they become harder. The question:

{question}

Work in four steps with exactly these headers:
STEP 1, METHODS: repair the question if it has an error, then list ways to make it harder.
STEP 2, PLAN: choose some of them and say how you apply them.
STEP 3, REWRITE: write the harder question; add no more than 10 to 20 words.
STEP 4, REVIEW: check that it can be solved and repair it if not.
FINAL QUESTION: the reviewed question alone.""",
    ("few_shot", SOLVABILITY): """Rewrite the question so that it can be solved. Do not answer it.
{question}""",
    ("few_shot", DIFFICULTY): """Rewrite the question so that it is harder. Do not answer it.
{question}""",
}
# Shown before a few-shot request: without examples a model of 135M parameters answers the question instead of rewriting it.
_REWRITE_EXAMPLES = {
    SOLVABILITY: [
        (
            "Tom has some apples and buys 3. How many?",
            "Tom has 5 apples and buys 3 more. How many apples does Tom have?",
        ),
        ("What is 7 + * 2?", "What is 7 + 2?"),
        ("How many wheels do cars have?", "How many wheels do 3 cars have in total?"),
        ("What is 6 times?", "What is 6 * 9?"),
    ],
    DIFFICULTY: [
        ("What is 3 + 4?", "What is 3 + 4 - 2 + 8?"),
        (
            "Tom has 5 apples and buys 3 more. How many apples does Tom have?",
            "Tom has 5 apples, buys 3 more and gives 2 to Ann. How many apples does Tom have?",
        ),
        ("How many wheels do 2 cars have?", "How many wheels do 2 cars and 3 bikes have?"),
        ("What is 6 * 9?", "What is 6 * 9 + 17?"),
    ],
}


def rewrite_turns(question: str, direction: str, style: str) -> list[str]:
    """Ask for a rewrite of a question that improves one thing, in the turns of a conversation."""
    return rewrite_conversation(_REWRITE, _REWRITE_EXAMPLES, question, direction, style)


def leaks_solution(question: str) -> bool:
    """Whether a question holds its own solution or answer.

    Three places are searched: an announcement anywhere ("Answer: 4"), a value that the question
    names while it asks ("What is 2 + 2, which is 4?"), and what follows the last thing asked, where
    values are given, concluded or worked out. Reminders, forms of the answer and drawings may
    follow it, too.
    """
    text = _DRAWING.sub(" ", plain(question))
    if _LABELLED.search(text) or any(map(_announces, _ANNOUNCED.finditer(text))) or _names_its_value(text):
        return True
    return ("?" in text and bool(_SOLUTION_STARTS.match(text, text.rfind("?") + 1))) or _gives_a_value(
        _after_what_is_asked(text)
    )


def _announces(found: "re.Match[str]") -> bool:
    """Whether "the answer is ..." announces one: not under a condition, and not as a part of what is given."""
    text, start, end = found.string, found.start(), found.end()
    begin = max(text.rfind(sign, 0, start) for sign in ".?!\n") + 1
    sentence = re.split(r"[.!]\s|\n|\?", text[end : end + 300], maxsplit=1)[0]
    asked_by_it = text[end + len(sentence) : end + len(sentence) + 1] == "?"
    if _CONDITION.search(text[begin:start]) or _NO_VALUE.match(sentence) or asked_by_it:
        return False
    # Before the question, an answer may be a fact: "When x is doubled, the answer is 64. What is x?"
    asked_later = asks(text[end:])
    return not asked_later or bool(_ARTICLES.fullmatch(text, begin, start) and re.match(_VALUE, sentence.strip()))


def _names_its_value(text: str) -> bool:
    if _WHICH_IS.search(text) or _WHERE_IT_IS.search(text) or _since_it_is(text) or _ASKED_EQUATION.search(text):
        return True
    # "2 + 2 equals 4. What is 2 + 2?"
    calculations = [(m[1].replace(" ", ""), bool(m[2])) for m in _CALCULATION.finditer(text)]
    return any(solved and (expression, False) in calculations for expression, solved in calculations)


def _since_it_is(text: str) -> bool:
    """Whether a reason is a solved calculation, and no other is asked: "Given that 3 + 4 = 7, what is 3 + 5?" leaks nothing."""
    reason = _SINCE.search(text)
    return bool(reason) and not any(not found[2] for found in _CALCULATION.finditer(text, reason.end()))  # type: ignore[union-attr]


def _after_what_is_asked(text: str) -> str:
    """What follows the last question mark, or the last order where that comes later."""
    end = text.rfind("?") + 1
    if not _SOLUTION_STARTS.match(text, end):
        for order in _ORDER.finditer(text, end):
            if order.start() < end:
                continue  # a second order in one sentence
            if not (stop := _SENTENCE_END.search(text, order.end())):
                return ""
            end = stop.end()
    return text[end:] if end else ""


def _gives_a_value(tail: str) -> bool:
    """Whether what follows a question gives, concludes or works out a value."""
    options = list(_CHOICE.finditer(tail))
    if len({choice[1].lower() for choice in options}) > 1:
        tail = tail[: options[0].start()]
    for remark in _REMARK.findall(tail):
        if _STARTS_A_CONCLUSION.match(remark) or (
            re.search(_VALUE, remark) and (_VALUE_ALONE.fullmatch(remark) or _EQUATION.match(remark.lstrip(" $(")))
        ):
            return True
    lines = _REMARK.sub(" ", tail).splitlines()
    listed = sum(bool(_OPTION.match(line)) for line in lines) > 1
    for line in lines:
        for sentence in _SENTENCE_END.split(line):
            sentence = sentence.strip(" \t*_>#")
            if len(sentence) > _LONGEST_SENTENCE or _NOTE.match(sentence):
                break  # what follows a note is part of it
            if not sentence or (_GIVEN.match(sentence) and not _COUNTS.match(sentence)):
                continue
            if _EQUATION.search(sentence) or "\\boxed" in sentence:
                return True
            if not (listed and _OPTION.match(line)) and (
                _VALUE_ALONE.fullmatch(sentence) or _CONCLUSION.search(sentence)
            ):
                return True
    return False


def asks(question: str) -> bool:
    """Whether a text asks for something: a question mark, or a sentence that begins with an order to work something out."""
    return "?" in question or bool(_ORDER.search(question))


_DRAWING = re.compile(
    r"\[asy\].*?(?:\[/asy\]|\Z)|\\begin\{(tabular|array|[a-z]*matrix|gathered|align\*?)\}.*?(?:\\end\{\1\}|\Z)",
    re.DOTALL,
)
_SENTENCE_END = re.compile(r"(?:(?<=[.?])|(?<=[a-z]{2}!))[*_\"')$]*\s+")
# A remark in brackets, which may hold brackets.
_REMARK = re.compile(r"(?<![\w}])\(((?:[^()]|\([^()]*\))*)\)(?!\^)(?=[\s.!*_]|\Z)")
_CHOICE = re.compile(r"(?:^|(?<=[\s({]))\(?([A-Fa-f])\s?(?:\\ ?)?[).:](?![A-Za-z])", re.MULTILINE)
_OPTION = re.compile(r"[\s(\[*_$]*(?:[1-9]|i{1,3}|iv|v)[.):]|[\s$]*\\(?:bullet|item)")
_LONGEST_SENTENCE = 400
_NUMBER_WORD = (
    r"(?:zero|one|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|thirteen|fourteen|fifteen|sixteen|seventeen|eighteen|nineteen|"
    r"twenty|thirty|forty|fifty|sixty|seventy|eighty|ninety|hundred)(?:-(?:one|two|three|four|five|six|seven|eight|nine))?\b"
)
_DIGITS = r"\d[\d,]*+(?:\.\d+)?(?:/\d+)?"
_VALUE = rf"(?:[$*_('\"]|\\\(|\\\$)*+-?\s?\$?(?:{_DIGITS}|\\[dt]?frac\s*\{{[-\d\s]*(?:\\pi)?\}}\s*\{{[-\d\s]+\}}|\\sqrt(?:\s?\{{\d+\}})?|\\pi|π|√\d*|{_NUMBER_WORD}|[a-zA-Z]\s?=\s?-?\$?\d)"
# What a value may be followed by up to the end of its sentence: a unit, "in total".
_UNIT = r"(?:\s?(?:π|\\pi))?+(?:\s?\\?%|\s?[a-zA-Z°]+(?:[ /-][a-zA-Z]+){0,4}+)?+"
_END = r"[\s$*_.!)'\"\]}\\]*+"

# A label, in a line of its own or anywhere behind a sign that ends a sentence. "Solution A holds
# 20% acid" and "Answer as a fraction" are none.
_LABEL = r"(?:(?:final|correct|right|expected|full|detailed) )?(?:solution|answer|ans|answer key|explanation|worked solution)"
_LABELLED = re.compile(
    r"\A\W*\\boxed|(?<!of)(?<!find)(?<!compute)(?<!is)(?<=[\w.?!)])\s+\$?\\boxed\s*\{[^{}\n]*\}\W*\Z|(?<!\S)####\s*\S"
    r"|(?:答案|解答|解析|答え|정답)\s*(?:[:=]|是|为)\s*\S|^[ \t#*>_]*+(?:soluci[oó]n|respuesta|l[oö]sung|antwort|r[eé]ponse|ответ|решение|risposta|resposta|解|答)\s*:"
    rf"|^[ \t#*>_]*+{_LABEL}[ \t*_]*+(?::|=|-\s|$)|[\[(]\s*{_LABEL}\s*[:=]"
    rf"|[.?!)$\d][*_ \t]+{_LABEL}\s*(?::|=|\s-\s)[*_]*\s*\S"
    r"|^[ \t*_]*+(?:A|Ans)[ \t*_]*[.:][*_ \t]+-?[$\\]*\d[^\n]*\Z|\?[*_ \t]+A[*_]*:[*_ \t]+-?[$\\]*\d[^:\n]*\Z",
    re.IGNORECASE | re.MULTILINE,
)
_ANNOUNCED = re.compile(
    r"\b(?:(?:correct )?answer|correct (?:option|choice|value|result)|final (?:result|value|amount|total|number))\b(?:\s+(?:to|for|of|here)\b[^.?!\n]{0,80}?)?\s+"
    r"(?:is|are|was|equals|would be|will be|should be|must be|comes to|comes out (?:to|as))\b",
    re.IGNORECASE,
)
# What may come before "answer is" where a sentence begins with it.
_ARTICLES = re.compile(
    r"[\s*_#>]*(?:(?:the|its|our|my|his|her|a|and|so|this|final|right|real|actual|numerical|exact)\s+)*+", re.IGNORECASE
)
_CONDITION = re.compile(
    r"\b(?:if|when|whenever|think|suppose|assume|given that|such that|so that|until|whether|where|why|how|what|which|enter|write|express|give|"
    r"return|round|your)\b",
    re.IGNORECASE,
)
# After "the answer is": it speaks of the answer's form or worth.
_NO_VALUE = re.compile(
    r"\s*(?:not\b|in\b|incorrect|wrong|correct\b|right\b|an?\b|the (?:letter|form|same|number|sum)\b|to be\b|of the\b|expressed|written|rounded|"
    r"required|unique|obvious|given\b|expected|sought|always|supposed|positive|negative|$)",
    re.IGNORECASE,
)
_WHICH_IS = re.compile(
    rf"(?:(?:,\s*|\()(?:which|that)\s+(?:is|equals|gives|makes)(?:\s+equal\s+to)?|,\s*(?:giving|yielding|obtaining|i\.?e\.?,?|namely)|\(\s*(?:it(?:'s| is)|answer|ans)?\s*=|=>|->|→)\s*"
    rf"{_VALUE}{_UNIT}{_END}\??{_END}\Z",
    re.IGNORECASE,
)
_WHERE_IT_IS = re.compile(
    rf"(?:\bif\s+(?:it|the answer)\s+(?:is|equals)\s+|\b(?:for|find|value of)\s+\$?([a-z])\$?[^\w.?!][^.?!]{{0,80}}\bwhere\s+\$?\1\s?=\s?){_VALUE}{_END}\??\Z",
    re.IGNORECASE,
)
_OPERATION = rf"(?<![\d.,])({_DIGITS}(?:\s?[-+*/×÷]\s?{_DIGITS})+)"
_CALCULATION = re.compile(rf"{_OPERATION}(?:\s*(=|equals|is equal to|makes|gives|is)\s*-?\$?\d)?", re.IGNORECASE)
_SINCE = re.compile(rf"\b(?:since|because|as|given that|knowing that)\s+\$?{_OPERATION}\s*=\s*-?\d", re.IGNORECASE)
_ASKED_EQUATION = re.compile(
    rf"\b(?:what(?:'s| is)|calculate|compute|evaluate|find|how much is)\s+(?:the (?:value|result) of\s+)?\$?{_OPERATION}\s*=\s*-?\$?{_DIGITS}\$?\s*[.?!]*\s*\Z",
    re.IGNORECASE,
)
# Directly behind the last question mark: its author begins to solve.
_SOLUTION_STARTS = re.compile(
    r"[\s*_#>-]*(?:(?:(?:so|now|first|okay|well),? )?let(?:'s| us) (?:solve|find|calculate|compute|work|break|start|begin|see|think|figure|add|first|do)\b"
    r"|(?:in order )?to (?:solve|answer|find|get|calculate|compute|determine|figure)\b[^.?!\n]{0,80}(?:,|\bwe\b|\byou\b)"
    r"|(?:first|firstly|step (?:1|one)|we (?:need|have|can|know|must|should|start|first|add|multiply|subtract|divide|calculate))\b[,: ]"
    r"|(?:working|explanation|reasoning|calculations?|rationale|hint|proof|result|output|total|key|sol)\s*:)",
    re.IGNORECASE,
)
# What may follow a question without being its answer. A note may have several sentences.
_NOTE = re.compile(
    r"[\s*_]*(?:note|notice|reminder|remember|recall|for (?:example|instance)|e\.g|assume|suppose|let\b(?!'s| us)|here\b(?!'s)|hint)\b",
    re.IGNORECASE,
)
_GIVEN = re.compile(
    r"[\s(\[*_]*(?:express|round|give|write|enter|use|consider|return|take|ignore|if|where|when|there (?:is|are|was|were)|each|one|every|all|an?|"
    r"please|state|leave|show|explain|your|do|don't|answer (?:as|in|with|to|\d)|in this|as (?:a|shown|usual)|simplify|choose|select|type|only|"
    r"include|provide|treat|approximate|you may|also|both|points?|\d+ (?:points?|marks?|pts))\b",
    re.IGNORECASE,
)
# "8 and 4", "8 apples, 4 pears". Longer lists are what the question is about.
_LISTED_UNIT = r"(?:\s?\\?%|\s?(?!and\b|or\b)[a-zA-Z°]+)?"
_LISTED = rf"{_LISTED_UNIT}(?:\s*,\s*|\s+)(?:(?:and|or)\s+)?"
_VALUE_ALONE = re.compile(
    rf"[=~>\s(\[-]*(?!\(?\d+\s*(?:points?|marks?|pts)\b){_VALUE}{_UNIT}{_END}"
    rf"|{_VALUE}(?:{_LISTED}{_VALUE}){{1,2}}{_LISTED_UNIT}{_END}"
    r"|\(?(?:option )?[A-E]\)?\.?|(?:yes|no|true|false)(?:[,;:][^?]*)?[.!]?|\$?\\boxed.*",
    re.IGNORECASE,
)
_COUNTS = re.compile(r"\W*there (?:is|are|were)\b", re.IGNORECASE)
_STARTS_A_CONCLUSION = re.compile(
    rf"\W*(?:(?:it|this|that)(?:'s|\s+(?:is|equals?|makes?|gives?))|so|therefore|thus|hence|answer\W)[^.?!]*?(?<![\w^{{_]){_VALUE}",
    re.IGNORECASE,
)
_HAS = (
    r"(?:has|have|had|gets?|got|makes?|made|needs?|pays?|paid|earns?|earned|spends?|spent|saves?|saved|sold|sells|ate|eats|bought|buys|left|"
    r"ends? up with|ended up with|is left with|reads?|takes?|took|travels?|runs?|ran|walks?|drives?|is|are|was|equals?)"
)
_CONCLUSION = re.compile(
    # "So he has 8 apples", "It is 4.", "The total is 8.", "Tom has 8 apples.", "We add both, which gives 8.", "x = 4."
    rf"\A\W*(?:so|thus|therefore|hence|altogether|finally|in total|in all|consequently|(?:this|that|which) means)\b[^.?!]*?(?<![\w^{{_]){_VALUE}(?![\w^_])"
    rf"|\A\W*(?:it|this|that|these)(?:'s|\s+(?:is|are|equals?|makes?|gives?|comes to|would be|will be))\s+(?:\w+\s+)??{_VALUE}"
    rf"|\A\W*(?:the|her|his|its|their)\s+(?:\w+\s+){{1,6}}?(?:is|are|was|equals?|comes to|will be|would be)\s+(?:\w+\s+)??{_VALUE}{_UNIT}{_END}\Z"
    rf"|\A\W*(?!(?:the|a|an|each|every|all|one|these|those|there)\b)[a-z]+\s+(?:\w+\s+){{0,2}}?{_HAS}\s+(?:a total of\s+|\w+\s+)??{_VALUE}(?!\s?(?:times|percent|%|\\%)|\s+(?:\w+\s+){{0,2}}(?:more|less|fewer|\w+er)\s+than\b)"
    rf"|\b(?:so|giving|which gives|which is|which makes|making|we get|you get|to get|gives us|gives|leaving|leaves)\s+(?:\w+\s+){{0,4}}?{_VALUE}{_UNIT}{_END}\Z"
    rf"|\A\W*there\s+(?:is|are|were|will be)\s+(?:\w+\s+)??{_VALUE}(?:\s+(?!in\b|per\b|of\b|on\b)\w+){{0,2}}(?:\s+(?:in total|altogether|in all|left))?{_END}\Z"
    rf"|\d[^.?!=]{{0,60}}\b(?:plus|minus|times|divided by|multiplied by|and)\b[^.?!=]{{0,60}}\b(?:is|equals|makes|gives)\s+{_VALUE}{_UNIT}{_END}\Z"
    r"|\A\W*(?:(?:simply|just|first|then|next|you (?:can|need to|should|must)|we)\s+)*(?:add|subtract|multiply|divide)\b(?![^.?!]*\b(?:your|answer|result)\b)[^.?!]*\d"
    rf"|\A\W*(?:[a-zA-Z]|{_VALUE})\s*=\s*\$?-?{_DIGITS}{_END}\Z",
    re.IGNORECASE,
)
# A calculation with its value: 5 + 3 = 8. In a reminder it is a fact.
_EQUATION = re.compile(
    r"\d\s?\)?\s?(?:[-+*/×÷]|\\times|\\cdot|\\div)\s?[$(]?\s?-?\d[\d,.]*[^=a-zA-Z\n]{0,80}=\s?-?[$\\]{0,2}\d"
)
# An order where a sentence or a clause begins (also after a formula), or one with an object; or a question word without its mark.
# Of MATH's training questions 99.4% ask by this rule.
_ORDER = re.compile(
    r"(?:^|[.:,;!)$\]}][ \t]*+|\n[ \t]*+)(?:(?:then|and|please|fully|completely|now|also|algebraically) )*"
    r"(?:find|calculate|compute|determine|evaluate|solve|simplify|prove|show|express|factor|expand|convert|round|estimate|write|give|"
    r"state|list|count|graph|rationalize|identify|name|arrange|choose|enter)\b"
    r"|(?<!to )(?<!we )(?<!can )\b(?:find|calculate|compute|determine|evaluate)\b (?:the|all|an?|\$|how|its|each|every|both)"
    r"|\b(?:how (?:many|much|long|far|old|fast)|what(?:'s| is| are| was| were| would| will)|(?:in|at|by) what)\b",
    re.IGNORECASE,
)
