"""No call may leave it to the terminal, or to a default, whether a model's own code runs."""

import ast

from tests.fakes import ROOT

# What loads a model or a data set by name, and asks on the terminal whether its code may run unless
# it is given an answer.
LOADERS = {"from_pretrained", "from_config", "load_dataset", "pipeline", "LLM", "AsyncLLM", "EngineArgs"}
SOURCES = [path for folder in ("scalequest", "stages", "benchmarks") for path in (ROOT / folder).rglob("*.py")]


def without_an_answer(code: str) -> list[int]:
    """Lines of calls that load something and do not say whether its code may run."""
    lines = []
    for node in ast.walk(ast.parse(code)):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        # PEFT's adapters bring no code; the model below them is loaded by its own call.
        peft = isinstance(node.func, ast.Attribute) and getattr(node.func.value, "id", "") == "PeftModel"
        if name in LOADERS and not peft and not any(k.arg == "trust_remote_code" for k in node.keywords):
            lines.append(node.lineno)
    return lines


def test_every_call_that_loads_a_model_says_whether_its_code_may_run():
    found = {f"{path.relative_to(ROOT)}:{line}" for path in SOURCES for line in without_an_answer(path.read_text())}
    assert found == set()
    assert without_an_answer("AutoModel.from_pretrained(x)\nLLM(x, trust_remote_code=False)\nPeftModel.from_pretrained(m, x)") == [1]  # fmt: skip
