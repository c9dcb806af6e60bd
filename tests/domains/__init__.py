"""What a model is asked in one domain, as texts to compare with golden ones."""

from scalequest.domains import DIFFICULTY, SOLVABILITY, Wording


def script(turns: list[str]) -> str:
    """A conversation as one text, the model's turns marked."""
    return "\n".join(f"> {turn}" if number % 2 else turn for number, turn in enumerate(turns))


def prompts(words: Wording, question: str) -> dict[str, str]:
    """Everything that is asked about one question, by name."""
    asked = {"solve": words.solve_prompt(question)}
    asked |= {f"judge_{style}": script(words.judge_turns(question, style)) for style in ("reasoned", "few_shot")}
    for style in ("sections", "few_shot"):
        for direction in (SOLVABILITY, DIFFICULTY):
            asked[f"{style}_{direction}"] = script(words.rewrite_turns(question, direction, style))
    return asked
