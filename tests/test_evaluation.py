import importlib.util
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from scalequest.answers.code import SOLUTION_LINE
from scalequest.domains import wording
from scalequest.domains.maths import solve_prompt
from scalequest.errors import UserError
from scalequest.evaluation import (
    Exam,
    doubts,
    few_shot_examples,
    lm_of,
    resolve_tasks,
    sample_rows,
    scores_in_words,
    split_of,
    summarize,
    task_scores,
)
from scalequest.io import read_jsonl, write_jsonl
from scalequest.outcomes import WARNINGS
from scalequest.sampling.completion import Completion
from tests.fakes import ROOT
from tests.warm import Warm

TASKS = ROOT / "eval" / "tasks"


def answered(task: str, *scores: tuple[float, float, float], **values: Any) -> list[dict[str, Any]]:
    """Rows of records.SAMPLE: (strict, flexible, unparsed) of each item."""
    return [
        {"task": task, "split": "test", "shots": 0, "id": f"{task}/{i}", "question": f"Q{i}?", "answer": str(i),
         "completion": f"\\boxed{{{i}}}", "finish_reason": "stop", "strict": s, "flexible": f, "unparsed": u, "timeout": 0.0}
        | values
        for i, (s, f, u) in enumerate(scores)
    ]  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- scoring


def test_scores_are_means_with_their_standard_errors():
    rows = answered("sums", (1.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (0.0, 1.0, 0.0))
    rows[3]["finish_reason"] = "length"
    rows[4]["finish_reason"] = "too_long"
    # strict, unparsed, cut: 1 of 5, with two successes and two failures added 3/9: sqrt(3/9 * 6/9 / 9) = 0.157135; flexible
    # 4 of 5, 6/9: the same spread.
    assert summarize(rows) == {
        "sums": {
            "n": 5, "timeouts": 0, "too_long": 1, "strict": 0.2, "strict_stderr": 0.157135, "flexible": 0.8,
            "flexible_stderr": 0.157135, "unparsed": 0.2, "unparsed_stderr": 0.157135, "cut": 0.2, "cut_stderr": 0.157135,
        }
    }  # fmt: skip


def test_none_of_ten_right_is_no_certainty():
    assert task_scores(answered("sums", *[(0.0, 0.0, 0.0)] * 10))["strict_stderr"] > 0.05


def test_development_items_and_few_shot_answers_have_scores_of_their_own():
    right, wrong = (1.0, 1.0, 0.0), (0.0, 0.0, 0.0)
    rows = [
        *answered("sums", right, wrong),
        *answered("sums", right, right, right, split="dev"),
        *answered("sums", wrong, wrong, shots=3),
        *answered("sums", right, split="dev", shots=3),
    ]
    scores = summarize(rows)
    assert scores.keys() == {"sums", "dev", "few_shot"}
    found = {key: (s["n"], s["flexible"]) for key, s in [("test", scores["sums"]), ("dev", scores["dev"]["sums"]), ("few_shot", scores["few_shot"]["sums"])]}  # fmt: skip
    assert found == {"test": (2, 0.5), "dev": (3, 1.0), "few_shot": (2, 0.0)}
    assert doubts(scores) == {"score_zero": True, "many_unparsed": False, "many_cut": False}  # the few-shot score is 0


@pytest.mark.parametrize(
    ("where", "place"),
    [({}, "sums"), ({"split": "dev"}, "dev/sums"), ({"shots": 3}, "few_shot/sums")],
    ids=["reported", "dev", "few_shot"],
)
@pytest.mark.parametrize(
    ("item", "more", "flag"),
    [
        ((0.0, 0.0, 0.0), {}, "score_zero"),
        ((0.0, 1.0, 1.0), {}, "many_unparsed"),
        ((1.0, 1.0, 0.0), {"finish_reason": "length"}, "many_cut"),
    ],
    ids=["zero", "unparsed", "cut"],
)
def test_a_doubtful_score_is_flagged_wherever_it_is(item, more, flag: str, where, place: str):
    fine = [
        row
        for apart in ({}, {"split": "dev"}, {"shots": 3})
        if apart != where
        for row in answered("sums", *[(1.0, 1.0, 0.0)] * 20, **apart)
    ]
    scores = summarize([*fine, *answered("sums", *[item] * 20, **where, **more)])
    assert [name for name, up in doubts(scores).items() if up] == [flag]
    assert [line for line in scores_in_words(scores).splitlines() if "warning" in line] == [
        f"warning: {place}: {WARNINGS[flag]}"
    ]
    assert not any(doubts(summarize(fine)).values())


def test_the_split_is_by_the_items_id_alone():
    ids = [f"gsm8k/{n}" for n in range(2000)]
    dev = {i for i in ids if split_of(i, 0.2) == "dev"}
    assert 340 < len(dev) < 460
    assert {i for i in ids if split_of(i, 0.1) == "dev"} < dev  # a larger share keeps what settings were chosen on
    assert not [i for i in ids if split_of(i, 0.0) == "dev"]


def test_items_are_kept_in_the_order_of_tasks_and_documents():
    exam = Exam(TASKS, TASKS, ["stories", "sums"], max_tokens=8)
    scored = {"strict": 0.0, "flexible": 1.0, "unparsed": 0.0, "timeout": 0.0}
    raw = {
        task: [
            {"doc_id": i, "doc": {"id": f"{task}/{i}", "question": f"Q{i}?", "answer": str(i), "more": 1}, "resps": [["\\boxed{1}"]]} | scored
            for i in reversed(range(n))
        ]
        for task, n in (("sums", 2), ("stories", 1))
    }  # fmt: skip
    finished = {("sums", 0): "stop", ("sums", 1): "length", ("stories", 0): "stop"}
    rows = list(sample_rows({"samples": raw}, exam, finished))
    assert [(r["task"], r["id"]) for r in rows] == [("stories", "stories/0"), ("sums", "sums/0"), ("sums", "sums/1")]
    assert rows[2] == {
        "task": "sums", "split": "test", "shots": 0, "id": "sums/1", "question": "Q1?", "answer": "1",
        "completion": "\\boxed{1}", "finish_reason": "length",
    } | scored  # fmt: skip


# ------------------------------------------------------------------------------------------------------------- answers


class FakeEngine:
    """Answers with the last turn of each prompt, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.stops: list[tuple[str, ...]] = []
        self.chat = SimpleNamespace(conversations=list)

    def complete(self, sampling: Any, stops: tuple[str, ...] = ()) -> Any:
        assert (sampling.temperature, sampling.max_tokens) == (0.0, 8)

        def complete(prompts: list[list[str]], _: Any) -> list[Completion]:
            self.asked += prompts
            self.stops.append(stops)
            return [Completion(f"to {turns[-1]}", "length" if turns[-1] == "b" else "stop", 1) for turns in prompts]

        return complete


def request(task: str, at: int, text: str, until: list[str]) -> Any:
    return SimpleNamespace(task_name=task, doc_id=at, args=(text, {"until": until, "do_sample": False}))


def test_the_pipelines_engine_answers_and_what_was_cut_is_recorded():
    engine = FakeEngine()
    lm = lm_of(engine, 8)  # type: ignore[arg-type]
    requests = [request("sums", 0, "a", []), request("code", 0, "c", ["\ndef "]), request("sums", 1, "b", [])]
    assert lm.generate_until(requests) == ["to a", "to c", "to b"]
    assert engine.stops == [(), ("\ndef ",)]  # a task's own stops are added to the template's
    assert lm.finished == {("sums", 0): "stop", ("code", 0): "stop", ("sums", 1): "length"}


def test_examples_are_earlier_turns():
    engine = FakeEngine()
    lm_of(engine, 8, [("Q1", "A1"), ("Q2", "A2")]).generate_until([request("sums", 0, "a", [])])  # type: ignore[arg-type]
    assert engine.asked == [["Q1", "A1", "Q2", "A2", "a"]]


def seeds(*sources: str) -> list[dict[str, str]]:
    return [{"id": f"{s}/{n}", "source": s, "question": f"q{n}", "solution": f"s{n}"} for n, s in enumerate(sources)]


def test_examples_come_from_all_sources_and_nest():
    rows = seeds(*["gsm8k"] * 50, *["math"] * 50)
    four = few_shot_examples(rows, 4)
    assert sorted(row["source"] for row in four) == ["gsm8k", "gsm8k", "math", "math"]
    assert all(row in four for row in few_shot_examples(rows, 2))
    assert few_shot_examples(rows, 0) == []
    with pytest.raises(UserError, match="3 examples, but 2 seeds have a solution"):
        few_shot_examples([*seeds("a", "b"), seeds("c")[0] | {"solution": ""}], 3)


# --------------------------------------------------------------------------------------------------------------- tasks


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path, Path]:
    """Tasks, benchmarks, target."""
    tasks, benchmarks, target = tmp_path / "tasks", tmp_path / "benchmarks", tmp_path / "target"
    for folder in (tasks, benchmarks, target):
        folder.mkdir()
    (tasks / "exam.yaml").write_text("test: ${benchmarks}/exam.jsonl\ndoc_to_text: !function maths.doc_to_text\n")
    (tasks / "other.yaml").write_text("test: ${benchmarks}/other.jsonl\n")
    (tasks / "maths.py").write_text("pass\n")
    write_jsonl(benchmarks / "exam.jsonl", [{"id": f"exam/{n}", "answer": "1"} for n in range(9)])
    return tasks, benchmarks, target


def test_a_tasks_files_are_filled_in_and_copied_with_their_helper(folders, monkeypatch: pytest.MonkeyPatch):
    tasks, benchmarks, target = folders
    monkeypatch.chdir(tasks.parent)
    resolve_tasks(tasks, Path("benchmarks"), target, ["exam"])
    assert sorted(p.name for p in target.iterdir()) == ["exam.jsonl", "exam.yaml", "maths.py"]
    # lm-eval resolves paths against its own folder: they must be absolute.
    items = read_jsonl(benchmarks / "exam.jsonl")
    assert list(read_jsonl(target / "exam.jsonl")) == [item | {"domain": "maths", "form": "worked"} for item in items]
    assert f"test: {target.resolve()}/exam.jsonl\n" in (target / "exam.yaml").read_text()
    assert "!function maths.doc_to_text" in (target / "exam.yaml").read_text()


def test_a_benchmark_that_was_not_written_is_named(folders):
    with pytest.raises(UserError, match=r"task 'other' needs .*other\.jsonl\. Run: dvc repro benchmarks"):
        resolve_tasks(*folders, ["other"])


def test_a_limit_draws_from_the_whole_file_and_every_subject(folders):
    tasks, benchmarks, target = folders
    # As MATH's test file: sorted by subject. The first ten rows would all be algebra.
    subjects = ["algebra"] * 50 + ["geometry"] * 30 + ["counting"] * 20
    rows = [{"id": f"exam/{n}", "stratum": subject, "answer": "1"} for n, subject in enumerate(subjects)]
    write_jsonl(benchmarks / "exam.jsonl", rows)
    drawn = {}
    for limit in (10, 20):
        resolve_tasks(tasks, benchmarks, target, ["exam"], limit)
        drawn[limit] = list(read_jsonl(target / "exam.jsonl"))
    assert Counter(row["stratum"] for row in drawn[10]) == {"algebra": 5, "geometry": 3, "counting": 2}
    assert [row for row in drawn[20] if row in drawn[10]] == drawn[10]
    assert [row["id"] for row in drawn[10]] != [row["id"] for row in rows[:10]]


def test_a_benchmark_without_a_task_of_its_own_gets_the_task_of_all(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "gsm8k.jsonl").write_text("{}\n")
    (tmp_path / "target").mkdir()
    resolve_tasks(TASKS, tmp_path / "benchmarks", tmp_path / "target", ["gsm8k"])
    text = (tmp_path / "target" / "gsm8k.yaml").read_text()
    assert "task: gsm8k\n" in text
    assert f"{tmp_path}/target/gsm8k.jsonl\n" in text
    for metric in ("strict", "flexible", "unparsed", "timeout"):
        assert f"metric: {metric}\n" in text


@pytest.fixture(scope="module")
def task():
    spec = importlib.util.spec_from_file_location("domain", TASKS / "domain.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_models_are_asked_as_they_were_trained(task):
    assert task.doc_to_text({"question": "Q?", "answer": "1", "domain": "maths"}) == solve_prompt("Q?")


@pytest.mark.parametrize(
    ("completion", "strict", "flexible", "unparsed"),
    [
        pytest.param("So \\boxed{12}.", 1.0, 1.0, 0.0, id="boxed"),
        pytest.param("The answer is 12.", 0.0, 1.0, 0.0, id="announced"),
        pytest.param("3 * 4 = 12", 0.0, 1.0, 0.0, id="last_number"),
        pytest.param("So \\boxed{13}.", 0.0, 0.0, 0.0, id="wrong"),
        pytest.param("I do not know.", 0.0, 0.0, 1.0, id="nothing"),
        pytest.param("", 0.0, 0.0, 1.0, id="empty"),
        pytest.param("\\boxed{12} or rather \\boxed{13}", 0.0, 0.0, 0.0, id="last_box_counts"),
    ],
)
def test_an_answer_is_scored_strictly_flexibly_and_for_being_readable(
    task, completion: str, strict: float, flexible: float, unparsed: float
):
    assert task.process_results({"question": "Q?", "answer": "12", "domain": "maths"}, [completion]) == {
        "strict": strict, "flexible": flexible, "unparsed": unparsed, "timeout": 0.0,
    }  # fmt: skip


# ---------------------------------------------------------------------------------------------- any model, any benchmark

TESTS = f"{SOLUTION_LINE}\nassert double(2) == 4"


@pytest.mark.parametrize(
    ("completion", "strict", "flexible", "unparsed", "timeout"),
    [
        pytest.param("```python\ndef double(x): return 2 * x\n```", 1.0, 1.0, 0.0, 0.0, id="a_block"),
        pytest.param("def double(x): return 2 * x", 0.0, 1.0, 0.0, 0.0, id="bare_code"),
        pytest.param("```python\ndef double(x): return 2 * x\n", 0.0, 1.0, 0.0, 0.0, id="a_cut_block"),
        pytest.param("```python\ndef double(x): return x\n```", 0.0, 0.0, 0.0, 0.0, id="wrong"),
        pytest.param("```python\nimport os\nos._exit(0)\n```", 0.0, 0.0, 0.0, 0.0, id="a_hard_exit_is_no_pass"),
        pytest.param(
            "```python\nimport sys\nprint('ok')\nsys.exit(0)\n```", 0.0, 0.0, 0.0, 0.0, id="an_exit_is_no_pass"
        ),
        pytest.param("```python\ndef double(x):\n    while True: pass\n```", 0.0, 0.0, 0.0, 1.0, id="no_end"),
        pytest.param("I would multiply.", 0.0, 0.0, 1.0, 0.0, id="no_code"),
    ],
)
def test_a_program_is_scored_by_the_benchmarks_tests(
    task, completion: str, strict: float, flexible: float, unparsed: float, timeout: float
):
    assert task.process_results({"question": "Q", "answer": TESTS, "domain": "code"}, [completion]) == {
        "strict": strict, "flexible": flexible, "unparsed": unparsed, "timeout": timeout,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("completion", "strict", "flexible", "unparsed", "timeout"),
    [
        pytest.param(
            "```python\ndef simple_math_problem():\n    return 24 / 2\n```", 1.0, 1.0, 0.0, 0.0, id="as_asked"
        ),
        pytest.param("```python\ndef answer():\n    return 12\n```", 0.0, 1.0, 0.0, 0.0, id="another_name"),
        pytest.param("```python\nprint(3 * 4)\n```", 0.0, 1.0, 0.0, 0.0, id="printed"),
        pytest.param("```python\ndef simple_math_problem():\n    return 13\n```", 0.0, 0.0, 0.0, 0.0, id="wrong"),
        pytest.param(
            "```python\ndef simple_math_problem():\n    while True: pass\n```", 0.0, 0.0, 1.0, 1.0, id="no_end"
        ),
        # A number that was not computed is another kind of answer.
        pytest.param("So \\boxed{12}.", 0.0, 0.0, 1.0, 0.0, id="text"),
    ],
)
def test_a_program_is_scored_by_what_it_returns(
    task, completion: str, strict: float, flexible: float, unparsed: float, timeout: float
):
    doc = {"question": "Q?", "answer": "12", "domain": "maths", "form": "program"}
    assert task.doc_to_text(doc) == solve_prompt("Q?", "program")
    assert task.process_results(doc, [completion]) == {
        "strict": strict, "flexible": flexible, "unparsed": unparsed, "timeout": timeout,
    }  # fmt: skip


def test_plain_benchmarks_alone_are_asked_for_programs(tmp_path: Path):
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "target").mkdir()
    for name, answer in (("gsm8k", "12"), ("humaneval", TESTS)):
        write_jsonl(tmp_path / "benchmarks" / f"{name}.jsonl", [{"id": "1", "question": "Q?", "answer": answer}])
    resolve_tasks(TASKS, tmp_path / "benchmarks", tmp_path / "target", ["gsm8k", "humaneval"], form="program")
    forms = {n: [r["form"] for r in read_jsonl(tmp_path / "target" / f"{n}.jsonl")] for n in ("gsm8k", "humaneval")}
    assert forms == {"gsm8k": ["program"], "humaneval": ["worked"]}


def test_the_programs_of_all_items_run_together(monkeypatch: pytest.MonkeyPatch):
    seen: list[list[str]] = []
    monkeypatch.setattr("scalequest.evaluation.read_programs", seen.append)
    requests = [request("sums", 0, "a", []), request("code", 0, "c", [])]
    for one, form in zip(requests, ("program", "worked"), strict=True):
        one.doc = {"form": form}
    lm_of(FakeEngine(), 8, form="program").generate_until(requests)  # type: ignore[arg-type]
    assert seen == [["to a"]]


def test_code_models_are_asked_as_they_were_trained(task):
    assert task.doc_to_text({"question": "Q?", "answer": TESTS, "domain": "code"}) == wording("code").solve_prompt("Q?")


PUZZLE = '{"puzzle": "knights_knaves", "answer": "Ann is a knight, and Bob is a knave.", "metadata": {}}'


@pytest.mark.parametrize(
    ("completion", "strict", "flexible", "unparsed"),
    [
        pytest.param("So \\boxed{Bob is a knave, and Ann is a knight}.", 1.0, 1.0, 0.0, id="boxed_in_another_order"),
        pytest.param("The answer is: Ann is a knight, and Bob is a knave.", 0.0, 1.0, 0.0, id="announced"),
        pytest.param("Bob lies.\nAnn is a knight and Bob is a knave", 0.0, 1.0, 0.0, id="last_line"),
        # The verifier gives 0.65 for one of two.
        pytest.param("\\boxed{Ann is a knight, and Bob is a knight}", 0.0, 0.0, 0.0, id="half_right_is_wrong"),
        pytest.param("", 0.0, 0.0, 1.0, id="empty"),
    ],
)
def test_a_puzzle_is_scored_by_its_own_verifier(task, completion: str, strict: float, flexible: float, unparsed: float):
    assert task.process_results({"question": "Q?", "answer": PUZZLE, "domain": "logic"}, [completion]) == {
        "strict": strict, "flexible": flexible, "unparsed": unparsed, "timeout": 0.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("own", "domains"),
    [
        pytest.param("maths", {"gsm8k": "maths", "humaneval": "code", "knights": "logic"}, id="maths"),
        pytest.param("code", {"gsm8k": "maths", "humaneval": "code", "knights": "logic"}, id="code"),
        # Plain answers may be words: the run's own comparison knows both words and numbers.
        pytest.param("logic", {"gsm8k": "logic", "humaneval": "code", "knights": "logic"}, id="logic"),
    ],
)
def test_the_items_say_which_domain_a_benchmark_is_of(tmp_path: Path, own: str, domains: dict[str, str]):
    for name, answer in (("gsm8k", "1"), ("humaneval", TESTS), ("knights", PUZZLE)):
        write_jsonl(tmp_path / "b" / f"{name}.jsonl", [{"id": "0", "question": "Q", "answer": answer}])
    (tmp_path / "t").mkdir()
    resolve_tasks(TASKS, tmp_path / "b", tmp_path / "t", list(domains), domain=own)
    assert {name: next(read_jsonl(tmp_path / "t" / f"{name}.jsonl"))["domain"] for name in domains} == domains
    assert "!function domain.doc_to_text" in (tmp_path / "t" / "humaneval.yaml").read_text()


def test_scores_are_printed_with_what_is_doubtful_about_them():
    scores = summarize(answered("sums", *[(0.0, 0.0, 1.0)] * 9, (0.0, 0.0, 0.0), finish_reason="length"))
    text = scores_in_words(scores)
    # 0 of 10: 2/14 with two successes and two failures added; sqrt(1/7 * 6/7 / 14) = 9.4 points.
    assert "0.0 ± 9.4" in text
    assert f"warning: sums: {WARNINGS['many_cut']}" in text
    assert f"warning: sums: {WARNINGS['score_zero']}" in text
    assert f"warning: sums: {WARNINGS['many_unparsed']}" in text
    assert "warning" not in scores_in_words(summarize(answered("sums", (1.0, 1.0, 0.0), (0.0, 0.0, 0.0))))


def test_the_readme_has_the_scores_as_they_were_measured():
    command = [sys.executable, "benchmarks/scores_table.py", "--check"]
    result = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert result.returncode == 0, result.stderr


# ----------------------------------------------------------------------------- a base whose end token ends no turn

RUN_ON = """
import json, sys
from pathlib import Path
from scalequest.evaluation import Exam, run_exam, summarize
from scalequest.params import load_all

model, benchmarks = map(Path, sys.argv[1:])
exam = Exam(Path("eval", "tasks"), benchmarks, ["sums"], max_tokens=64)
params = load_all(Path("params.yaml"))
engine = params.engine.model_copy(update={"max_num_seqs": 4, "max_model_len": 256})
runtime = params.runtime.model_copy(update={"cpu_kv_cache_gib": 1})
rows = run_exam(model, exam, engine, runtime, [("What is 3 + 3?", "The answer is \\\\boxed{6}.")])
print("RESULT" + json.dumps([rows, summarize(rows)]))
"""


def make_base_that_runs_on(out: Path) -> None:
    """A base model as Qwen2-Math-7B is one: ChatML as template, <|endoftext|> as end of sequence.

    Trained to answer, to end its turn, and to go on with a question and an answer that nobody asked for.
    """
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from tests.tiny import make_tokenizer

    tokenizer = make_tokenizer(out)
    tokenizer.eos_token = tokenizer.pad_token
    tokenizer.save_pretrained(out)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=2,
        num_key_value_heads=2, max_position_embeddings=256, tie_word_embeddings=True, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    model = LlamaForCausalLM(config)
    first = tokenizer.apply_chat_template([{"role": "user", "content": solve_prompt("What is 1 + 1?")}], tokenize=False, add_generation_prompt=True)  # fmt: skip
    invented = "<|im_end|>\n<|im_start|>user\nWhat is 7 + 7?<|im_end|>\n<|im_start|>assistant\nThe answer is \\boxed{14}.<|im_end|>\n"
    prompt = tokenizer.encode(first, add_special_tokens=False)
    target = tokenizer.encode("The answer is \\boxed{2}." + invented, add_special_tokens=False)
    ids, labels = torch.tensor([prompt + target]), torch.tensor([[-100] * len(prompt) + target])
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(120):
        loss = model(input_ids=ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    assert loss < 0.05
    model.save_pretrained(out)


@pytest.mark.slow
def test_evaluation_stops_where_the_template_ends_a_turn(tmp_path: Path, warm: Warm):
    make_base_that_runs_on(tmp_path / "model")
    write_jsonl(tmp_path / "benchmarks" / "sums.jsonl", [{"id": "sums/0", "question": "What is 1 + 1?", "answer": "2"}])
    done = warm.run("-c", RUN_ON, str(tmp_path / "model"), str(tmp_path / "benchmarks"), cwd=ROOT)
    assert "RESULT" in done.stdout, done.stderr[-3000:]
    rows, scores = json.loads(done.stdout.split("RESULT", 1)[1])
    # Stopped by the end of sequence alone, the last box was the invented question's 14: strict 0, flexible 0.
    assert rows[0]["completion"] == "The answer is \\boxed{2}."
    assert rows[0]["finish_reason"] == "stop"
    assert (scores["sums"]["strict"], scores["sums"]["flexible"], scores["sums"]["cut"]) == (1.0, 1.0, 0.0)
    assert [row["shots"] for row in rows] == [0, 1]
    assert scores["few_shot"]["sums"]["n"] == 1
