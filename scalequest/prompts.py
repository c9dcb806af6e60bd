"""Every prompt and chat format, and the parsers of what comes back. Prompts are named for what they ask.

The paper's code crosses two names: its "solvability" prompt asks for a harder question and its "difficulty" prompt
repairs solvability (docs/paper-differences.md, 1). Here ``solvability`` repairs and ``difficulty`` hardens.
"""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from scalequest.errors import UserError

SOLVABILITY, DIFFICULTY = "solvability", "difficulty"

# --------------------------------------------------------------------------------------------------------- chat format

_SENTINEL = "QUESTIONGOESHERE"


@dataclass(frozen=True)
class ChatFormat:
    """A tokenizer's chat template as token ids, so that nothing downstream adds a second BOS or retokenizes a seam.

    Attributes:
        tokenizer: a Hugging Face tokenizer with a chat template.
        prefix: text up to where the user's words begin, without trailing spaces: after "User: " the first word would
            tokenize differently from "User:" + " word" (docs/paper-differences.md, 7).
        lead: the trailing spaces taken off ``prefix``; they go in front of the user's words.
        suffix: text from the end of the user's words to the open assistant turn.
    """

    tokenizer: Any
    prefix: str
    lead: str
    suffix: str

    @classmethod
    def of(cls, tokenizer: Any) -> "ChatFormat":
        """Read the format off the tokenizer's own template.

        Raises:
            UserError: there is no template, or it does not hold the user's words as they are.
        """
        name = getattr(tokenizer, "name_or_path", "the model")
        if not getattr(tokenizer, "chat_template", None):
            raise UserError(
                f"{name}: its tokenizer has no chat template; take an instruct model or add chat_template.jinja"
            )
        if "strftime_now" in tokenizer.chat_template:
            raise UserError(
                f"{name}: its chat template prints today's date, so prompts would differ from day to day; copy the model folder, "
                "write a fixed date into chat_template.jinja, and name it as path:DIR"
            )
        text = tokenizer.apply_chat_template(
            [{"role": "user", "content": _SENTINEL}], tokenize=False, add_generation_prompt=True
        )
        if text.count(_SENTINEL) != 1:
            raise UserError(f"{name}: its chat template repeats or drops the user's words: {text!r}")
        if tokenizer.eos_token_id is None:
            raise UserError(f"{name}: its tokenizer has no end-of-sequence token, so no question could end")
        prefix, suffix = text.split(_SENTINEL)
        stripped = prefix.rstrip(" ")
        return cls(tokenizer, stripped, prefix[len(stripped) :], suffix)

    def encode(self, text: str) -> list[int]:
        """Token ids of ``text`` as it stands; special tokens written in it count as such, none is added."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def decode(self, ids: list[int]) -> str:
        """Text of token ids, special tokens shown."""
        text: str = self.tokenizer.decode(ids, skip_special_tokens=False)
        return text

    @cached_property
    def question_prefix(self) -> list[int]:
        """The pre-query prompt: what a generator continues with a question (paper 2.1)."""
        return self.encode(self.prefix)

    @cached_property
    def question_end(self) -> int:
        """The token that ends a question: the template's own end of a user turn, else the end of sequence."""
        after = self.encode(self.suffix.lstrip())
        special = set(self.tokenizer.all_special_ids)
        return after[0] if after and after[0] in special else int(self.tokenizer.eos_token_id)

    @cached_property
    def stop_ids(self) -> list[int]:
        """Tokens that end any completion. Ids, because vLLM strips special tokens before it compares stop strings."""
        return sorted({self.question_end, int(self.tokenizer.eos_token_id)})

    @cached_property
    def question_stops(self) -> list[str]:
        """Text that ends a question where the template marks a turn's end by words alone ("Assistant:"), else nothing."""
        after = self.suffix.strip()
        special = self.encode(after)[:1]
        return [] if not after or special[0] in set(self.tokenizer.all_special_ids) else [after]

    def question(self, text: str) -> list[int]:
        """A question and its end token, as the continuation of ``question_prefix``."""
        return [*self.encode(self.lead + text), self.question_end]

    def user_turn(self, content: str) -> list[int]:
        """A whole prompt: the user's words and the opened assistant turn."""
        return self.encode(self.prefix + self.lead + content + self.suffix)

    def conversation(self, turns: list[str]) -> list[int]:
        """A whole prompt of several turns, the user's first and last, and the opened assistant turn."""
        if len(turns) == 1:
            return self.user_turn(turns[0])
        roles = ("user", "assistant")
        messages = [{"role": roles[i % 2], "content": turn} for i, turn in enumerate(turns)]
        return self.encode(self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def response(self, text: str) -> list[int]:
        """A response and its end token, as the continuation of ``user_turn``."""
        return [*self.encode(text), int(self.tokenizer.eos_token_id)]

    def solution(self, question: str, response: str) -> list[int]:
        """A solved question as one sequence: what the reward model reads, the asking for a boxed answer included.

        It has no end token: transformers reads a scalar head at the last token that is not padding, vLLM at the last
        token, and where padding and end are one token (as in SmolLM2) these would differ.
        """
        return self.user_turn(solve_prompt(question)) + self.encode(response)

    def answered(self, question: str, response: str) -> list[int]:
        """A solved question as the template itself writes it, both turns closed: what released reward models were trained on."""
        turns = [{"role": "user", "content": solve_prompt(question)}, {"role": "assistant", "content": response}]
        return self.encode(self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=False))


# ------------------------------------------------------------------------------------------------------------- solving


def solve_prompt(question: str) -> str:
    """Ask for a worked solution (the Qwen-Math instruction that the paper's responder gets)."""
    return f"{question}\nPlease reason step by step, and put your final answer within \\boxed{{}}."


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
# A word of its own; "_Yes_" is one, too, though \b takes the underscore for a letter.
_VERDICT = re.compile(r"(?<![^\W_])(yes|no)(?![^\W_])", re.IGNORECASE)


def judge_turns(question: str, style: str) -> list[str]:
    """Ask whether a question can be solved (after the paper's Fig. 12, in our words).

    Returns:
        The turns of a conversation, the user's first and last, the model's between.
    """
    return [*_JUDGE_EXAMPLES, question] if style == "few_shot" else [_JUDGE[style].format(question=question)]


def parse_verdict(completion: str) -> bool | None:
    """The judge's yes or no, the LAST standalone one; None if there is neither ("yesterday" is not a yes)."""
    found = _VERDICT.findall(completion)
    return found[-1].lower() == "yes" if found else None


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
# What models put around the header: markdown, a number, "Finally", "Rewritten", "is". A header ends in a colon or a dash, or
# its line ends: "The final question asks for .." is none. Possessive (*+) where a run of blanks or signs would backtrack.
_FINAL_HEADER = re.compile(
    r"^[ \t#*>_\-]*+(?:\(?(?:(?:step|section)[ \t]*)?\d+[ \t]*[:,.)\-]*[ \t]*)?[#*_]*(?:the[ \t]+)?final(?:ly)?[ \t]+"
    r"(?:(?:rewritten|rewrite|created)[ \t]+)?(?:question|problem)(?:[ \t]+is)?[ \t#*_]*+(?:[:\-–—][ \t#*_:]*+(.*?))?[ \t]*$",
    re.IGNORECASE | re.MULTILINE,
)
# A direct answer often starts with a remark on itself, or with a label.
_PREAMBLE = re.compile(
    r"(?:(?:sure|certainly|of course|okay|absolutely)\b[!,.]*+\s*+)?[#*_\s]*+"
    r"(?:here(?:['’]s| is)\s[^\n:]*\b(?:problem|question|version|exercise|rewrite)\b[^\n:]*:"
    r"|(?:the |an? )?(?:(?:new|corrected|rewritten|revised|modified|better|harder|more (?:difficult|challenging)) )*(?:math )?"
    r"(?:problem|question)(?: is)?(?:[ \t]*:|[ \t*_]*\n))[\s*_]*",
    re.IGNORECASE,
)
# A model may go on with a next example.
_NEXT_EXAMPLE = re.compile(r"\n+question:", re.IGNORECASE)


def rewrite_turns(question: str, direction: str, style: str) -> list[str]:
    """Ask for a rewrite that improves one thing (after the paper's Figs 10 and 11, in our words).

    Returns:
        The turns of a conversation, the user's first and last, the model's between.
    """
    template = _REWRITE[style, direction]
    shown = _REWRITE_EXAMPLES[direction] if style == "few_shot" else []
    examples = [turn for before, after in shown for turn in (template.format(question=before), after)]
    return [*examples, template.format(question=question)]


def parse_rewrite(completion: str, style: str) -> str:
    """The rewritten question in the optimizer's completion; empty if there is none."""
    if style == "few_shot":
        text = completion.strip()
        if remark := _PREAMBLE.match(text):
            text = text[remark.end() :]
        text = _NEXT_EXAMPLE.split(text, maxsplit=1)[0]
    else:
        headers = list(_FINAL_HEADER.finditer(completion))
        if not headers:
            return ""
        last = headers[-1]
        text = (last.group(1) or "") + completion[last.end() :]
    return text.strip().strip("*").strip().strip('"').strip()


def leaks_solution(question: str) -> bool:
    """Whether a question holds its own solution or answer."""
    return bool(_LEAK.search(question))


def asks(question: str) -> bool:
    """Whether a text asks for something: a question mark, or a sentence that begins with an order to work something out."""
    return "?" in question or bool(_ORDER.search(question))


# "Solution A holds 20% acid" and "Answer as a fraction" leak nothing: a heading or a colon makes the difference.
_LEAK = re.compile(
    r"\\boxed|\banswer(?: to [^.?!\n]*)? is\b|^[ \t#*>_]*+(?:final )?(?:solution|answer)[ \t*_]*+(?::|$)|\((?:answer|solution):"
    r"|, which is -?\d[\d,.]*\s*$",
    re.IGNORECASE | re.MULTILINE,
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
