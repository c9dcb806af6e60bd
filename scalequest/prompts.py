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

    def question(self, text: str) -> list[int]:
        """A question and its end token, as the continuation of ``question_prefix``."""
        return [*self.encode(self.lead + text), self.question_end]

    def user_turn(self, content: str) -> list[int]:
        """A whole prompt: the user's words and the opened assistant turn."""
        return self.encode(self.prefix + self.lead + content + self.suffix)

    def response(self, text: str) -> list[int]:
        """A response and its end token, as the continuation of ``user_turn``."""
        return [*self.encode(text), int(self.tokenizer.eos_token_id)]

    def solution(self, question: str, response: str) -> list[int]:
        """A solved question as one sequence: what the reward model reads, the asking for a boxed answer included.

        It has no end token: transformers reads a scalar head at the last token that is not padding, vLLM at the last
        token, and where padding and end are one token (as in SmolLM2) these would differ.
        """
        return self.user_turn(solve_prompt(question)) + self.encode(response)


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
    "direct": """Here is a text:

{question}

Is it a mathematics problem with everything that is needed to solve it? Answer with one word, Yes or No.""",
}
_VERDICT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)


def judge_prompt(question: str, style: str) -> str:
    """Ask whether a question can be solved (after the paper's Fig. 12, in our words)."""
    return _JUDGE[style].format(question=question)


def parse_verdict(completion: str) -> bool | None:
    """The judge's yes or no, the LAST standalone one; None if there is neither ("yesterday" is not a yes)."""
    found = _VERDICT.findall(completion)
    return found[-1].lower() == "yes" if found else None


# ----------------------------------------------------------------------------------------------------------- rewriting

_FINAL = "FINAL QUESTION:"
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
    # One example each: without it a 135M model answers the question instead of rewriting it.
    ("direct", SOLVABILITY): """Rewrite a math question so that it is clear, complete and can be solved. Do not answer it.

Question: Tom has some apples and buys 3. How many?
Better question: Tom has 5 apples and buys 3 more. How many apples does Tom have now?

Question: {question}
Better question:""",
    ("direct", DIFFICULTY): """Rewrite a math question so that it becomes a little harder. Do not answer it.

Question: Tom has 5 apples and buys 3 more. How many apples does Tom have now?
Harder question: Tom has 5 apples, buys 3 more and then gives away 2. How many apples does Tom have now?

Question: {question}
Harder question:""",
}
# What models put around the header: markdown, a number, "Finally", "Rewritten", a colon or none.
_FINAL_HEADER = re.compile(
    r"^[\s#*>\-]*(?:(?:step|section)\s*\d+\s*[:,.\-]?\s*)?(?:the\s+)?final(?:ly)?\s*(?:rewritten|rewrite|created)?\s*(?:question|problem)?"
    r"\s*[:#*]*[ \t]*[:]?[ \t]*(.*?)\s*$",
    re.IGNORECASE | re.MULTILINE,
)
_FIRST_HEADER = {SOLVABILITY: "CREATED QUESTION", DIFFICULTY: "STEP 1"}
# A direct answer often starts with a remark on itself.
_PREAMBLE = re.compile(
    r"^\s*(?:(?:sure|certainly|of course|okay)[^\n]*\n+)?\s*(?:here(?:'s| is)[^\n:]*:|(?:the )?(?:new |corrected |rewritten |harder |better )*"
    r"(?:math )?(?:problem|question)(?: is)?\s*:)\s*",
    re.IGNORECASE,
)


def rewrite_prompt(question: str, direction: str, style: str) -> str:
    """Ask for a rewrite that improves one thing (after the paper's Figs 10 and 11, in our words)."""
    return _REWRITE[style, direction].format(question=question)


def parse_rewrite(completion: str, style: str) -> str:
    """The rewritten question in the optimizer's completion; empty if there is none."""
    if style == "direct":
        text = _PREAMBLE.sub("", completion, count=1)
    else:
        headers = [m for m in _FINAL_HEADER.finditer(completion) if _is_header(m)]
        if not headers:
            return ""
        last = headers[-1]
        text = last.group(1) + completion[last.end() :]
    return text.strip().strip("*").strip().strip('"').strip()


def _is_header(match: "re.Match[str]") -> bool:
    """A line that only begins with the word "final" is no header ("Final speed was 3 m/s"): it must name what follows."""
    head = match.group(0)[: match.start(1) - match.start(0)].lower()
    return "question" in head or "problem" in head or "rewrit" in head


def leaks_solution(question: str) -> bool:
    """Whether a question holds its own solution or answer."""
    return bool(_LEAK.search(question))


def asks(question: str) -> bool:
    """Whether a text asks for something: a question mark, or a sentence that begins with an order to work something out."""
    return "?" in question or bool(_ORDER.search(question))


_LEAK = re.compile(
    r"\\boxed|\banswer(?: to [^.?!\n]*)? is\b|^\s*(?:\*\*)?(?:solution|answer)\b\s*:?", re.IGNORECASE | re.MULTILINE
)
_ORDER = re.compile(
    r"(?:^|[.:,;!]\s+|\n\s*)(?:then |and |please )?(?:find|calculate|compute|determine|evaluate|solve|simplify|prove|show|express|"
    r"factor|expand|convert|round|estimate|write|give|state|list|count|graph|let us find|give)\b",
    re.IGNORECASE,
)
