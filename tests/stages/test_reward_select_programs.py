"""The choice among programs, by the numbers that they return (``respond.form: program``)."""

import json

from scalequest.outcomes import PROGRAM_OUTCOMES
from scalequest.records import INSTRUCTION, read_rows
from tests.stages.test_reward_select import stage  # noqa: F401


def returning(value: str) -> str:
    return f"```python\ndef simple_math_problem():\n    return {value}\n```"


def test_programs_are_chosen_by_the_numbers_that_they_return(stage):  # noqa: F811
    printing = "```python\nprint(12)\n```"
    programs = {
        "a": [returning("3 * 4"), returning("24 / 2"), returning("13"), printing],
        "b": [returning("1 / 0"), printing, "\\boxed{12}", returning("'12'")],
        "c": [returning("7"), returning("7"), returning("7.0"), returning("8")],
    }
    values = {"a": [0.0, 1.0, 5.0, 9.0], "b": [0.0] * 4, "c": [0.0, 0.0, 1.0, 2.0]}
    folder = stage(programs, values, by="majority", keep="all_agreeing", min_agreement=2, form="program")
    rows = read_rows(folder / "instruct.parquet", INSTRUCTION)
    # `a`: 12 is returned twice of four, by two programs. `c`: 7 three times, by two programs; the
    # better reward first. `b`: none returns.
    assert [(row["id"], row["final_answer"], row["response"], row["agreement"]) for row in rows] == [
        ("a", "12", returning("24 / 2"), 0.5), ("a", "12", returning("3 * 4"), 0.5),
        ("c", "7", returning("7.0"), 0.75), ("c", "7", returning("7"), 0.75),
    ]  # fmt: skip
    metrics = json.loads((folder / "m.json").read_text())
    assert metrics["dropped"] == {"no_answer": 1, "crashed": 0, "low_reward": 0, "too_few_agree": 0}
    # `a` has three numbers, `c` four; two are printed; the box is no program.
    assert {name: n for name, n in metrics["programs"].items() if n} == {
        "number": 7, "printed": 2, "text": 1, "raised": 1, "no_program": 1,
    }  # fmt: skip
    assert metrics["programs"].keys() == PROGRAM_OUTCOMES.keys()
    assert metrics["checkable"] == {"n": 0, "right": 0, "right_frac": None}
    assert "arithmetic" not in metrics
