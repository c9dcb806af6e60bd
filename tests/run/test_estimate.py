import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from scalequest.cli import main
from scalequest.errors import UserError
from scalequest.io import file_hash, read_json, write_json
from scalequest.params import Params, read_yaml
from scalequest.run.estimate import (
    TABLE,
    OwnRows,
    kept_questions,
    of_run,
    pairs_of,
    workload,
)
from scalequest.run.profile import load_profile
from scalequest.run.rates import generated_rate, hours, measured_rates, trained_share
from scalequest.run.work import Assumptions, FinishedRun, Work
from tests.fakes import RATE_OF_GPU_135M, ROOT, changed

# Round numbers, to be reckoned by hand.
GPU: dict[str, Any] = {
    "peak_tflops": 100, "engine_start_s": 100, "read_share_of_peak": 0.5, "generated_tokens_per_s": [[1, 1000], [10, 400]]
}  # fmt: skip
SHARES: dict[str, Any] = {
    "trained_share_of_peak": 0.1, "max_trained_samples_per_s": 50, "max_read_sequences_per_s": 20, "training_start_s": 7
}  # fmt: skip


@pytest.fixture
def table() -> dict[str, Any]:
    return read_yaml(TABLE)


@pytest.fixture
def paper(table: dict[str, Any]) -> dict[str, Work]:
    found = workload(
        load_profile("paper-math", ROOT),
        Assumptions(table["tokens"], table["keeps"]),
        table["sizes"],
        14_969,
        OwnRows(),
    )
    return {work.stage: work for work in found}


@pytest.mark.parametrize(
    ("billions", "rate"),
    [
        (1.0, 1000.0),
        (0.1, 1000.0),  # smaller than any row: no faster than it
        (2.0, 1000.0),  # nearer to 1 than to 10 on a logarithmic scale
        (5.0, 400.0),
        (40.0, 100.0),
    ],
)
def test_the_rate_of_the_nearest_size_counts(billions: float, rate: float):
    assert generated_rate(GPU["generated_tokens_per_s"], billions) == rate


def test_no_larger_model_is_faster(table: dict[str, Any]):
    rows = table["gpus"]["h100"]["generated_tokens_per_s"]["response"]
    rates = [generated_rate(rows, billions) for billions in (0.135, 0.36, 0.5, 1.5, 3.0, 3.3, 7.6, 14.0)]
    # 0.36 is nearest to 0.135, 3.3 to 1.5; 14 is above the largest row: 25,400 * 7.6 / 14 = 13,789.
    assert [round(rate) for rate in rates] == [51_200, 51_200, 36_500, 36_500, 36_500, 36_500, 25_400, 13_789]


@pytest.mark.parametrize(
    ("work", "seconds"),
    [
        pytest.param(Work("x", 1, 1.0, generated=5_000), 5.0, id="generated: 5,000 at 1,000 a second"),
        pytest.param(Work("x", 1, 1.0, engines=2), 200.0, id="two starts of 100 s"),
        pytest.param(Work("x", 1, 1.0, trainings=3), 21.0, id="three trainings' starts of 7 s"),
        # 2 * 1e9 * 1e6 = 2e15 operations at half of 1e14 a second
        pytest.param(Work("x", 1, 1.0, read=1_000_000), 40.0, id="read, by arithmetic"),
        pytest.param(Work("x", 1, 1.0, read=1_000_000, sequences=1_000), 50.0, id="read, by the cost of a sequence"),
        pytest.param(
            Work("x", 9_999, 1.0, generated=5_000, read=1_000_000), 45.0, id="both, and rows cost nothing by themselves"
        ),
        # 6 * 1e9 * 1e6 = 6e15 operations at a tenth of 1e14 a second; 1,000 samples at 50 a second would take 20
        pytest.param(Work("x", 1, 1.0, trained=1_000_000, samples=1_000), 600.0, id="trained, by arithmetic"),
        pytest.param(Work("x", 1, 1.0, trained=1_000, samples=1_000), 20.0, id="trained, by the cost of a step"),
        pytest.param(Work("x", 1, None, generated=10**9), 0.0, id="an API takes no hours of ours"),
    ],
)
def test_hours_follow_from_tokens(work: Work, seconds: float):
    assert hours(work, GPU, SHARES) * 3600 == pytest.approx(seconds)


BY_LENGTH: dict[str, Any] = GPU | {
    "generated_tokens_per_s": {"question": [[1, 500]], "judgement": [[1, 800]], "response": [[1, 1000]]},
    "generated_tokens_per_s_fp8": {"question": [[1, 600]], "judgement": [[1, 1200]], "response": [[1, 1600]]},
}


@pytest.mark.parametrize(
    ("gpu", "length", "fp8", "rate"),
    [
        (BY_LENGTH, "question", False, 500),
        (BY_LENGTH, "judgement", False, 800),
        (BY_LENGTH, None, False, 1000),  # not measured: as a response
        (BY_LENGTH, "response", True, 1600),
        (GPU, "question", False, 1000),  # one list for all lengths
        (GPU, "response", True, 1000),  # fp8 was not measured
        (GPU | {"generated_tokens_per_s_fp8": [[10, 900]]}, "response", True, 1000),  # nor for this size
    ],
)
def test_a_rate_is_that_of_the_length_and_the_precision(
    gpu: dict[str, Any], length: str | None, fp8: bool, rate: float
):
    work = Work("x", 1, 1.0, generated=8_000, length=length, fp8=fp8)
    assert measured_rates(gpu, work)[0] == [1, rate]
    assert hours(work, gpu, SHARES) * 3600 == pytest.approx(8_000 / rate)


def test_rates_with_their_prompts_count_reading_once():
    read = {"generated": 5_000, "read": 1_000_000, "sequences": 1_000}
    # 5,000 at 1,000 a second; reading alone would take 50 s, see above.
    assert hours(Work("x", 1, 1.0, length="response", **read), GPU, SHARES) * 3600 == pytest.approx(5.0)
    assert hours(Work("x", 1, 1.0, **read), GPU, SHARES) * 3600 == pytest.approx(55.0)


def test_training_has_a_share_by_size_and_maybe_no_limit():
    table = SHARES | {"trained_share_of_peak": [[0.1, 0.05], [1, 0.2], [10, 0.4]], "max_trained_samples_per_s": None}
    assert [trained_share(table, billions) for billions in (0.135, 1.5, 7.6)] == [0.05, 0.2, 0.4]
    # 6e15 operations at a fifth of 1e14 a second; a million samples do not matter
    assert hours(Work("x", 1, 1.0, trained=1_000_000, samples=10**6), GPU, table) * 3600 == pytest.approx(300.0)


def test_students_of_other_data_are_estimated_by_its_rows(laptop: Params, table: dict[str, Any], tmp_path: Path):
    token = table["tokens"]

    def trained(**tune: Any) -> tuple[int, int]:
        params = changed(laptop, instruct_tune={"waits_for": "seeds", "n_examples": None} | tune)
        found = workload(params, Assumptions(token, table["keeps"]), table["sizes"], 130, OwnRows(), pairs_of(params.instruct_tune))  # fmt: skip
        [work] = [work for work in found if work.stage == "instruct_tune"]
        return work.rows, round(work.trained / len(params.instruct_tune.seeds) / params.instruct_tune.epochs)

    assert trained(data="seeds") == (130, round(130 * (token["question"] + token["template"] + token["solution"])))
    assert trained(data="seeds", n_examples=50)[0] == 50
    file = tmp_path / "pairs.jsonl"
    file.write_text('{"question": "1 + 1?", "response": "2"}\n' * 7)
    assert trained(data=str(file), data_sha256=file_hash(file))[0] == 7
    assert trained(data="gone.jsonl", data_sha256="0" * 64, n_examples=5)[0] == 5
    with pytest.raises(UserError, match=r"instruct_tune.data: gone.jsonl: no such file"):
        trained(data="gone.jsonl", data_sha256="0" * 64)
    gone = changed(laptop, instruct_tune={"waits_for": "seeds", "n_examples": None, "data": "gone.jsonl", "data_sha256": "0" * 64})  # fmt: skip
    assert pairs_of(gone.instruct_tune, 900) == 900


def test_sampling_alone_is_estimated_in_8_bits(table: dict[str, Any]):
    params = load_profile("paper-math", ROOT)
    for quantization, expected in (
        (None, set()),
        ("fp8", {"qpo_questions", "generate", "judge", "difficulty_labels", "respond"}),
    ):
        engine = params.engine.model_copy(update={"quantization": quantization})
        found = workload(
            params.model_copy(update={"engine": engine}),
            Assumptions(table["tokens"], table["keeps"]),
            table["sizes"],
            14_969,
            OwnRows(),
        )
        assert {w.stage for w in found if w.fp8} - {"preferences", "preference_check"} == expected
    lengths = {w.stage: w.length for w in found}
    assert (lengths["generate"], lengths["judge"], lengths["respond"]) == ("question", "judgement", "response")
    assert lengths["reward"] is lengths["difficulty"] is lengths["instruct_tune"] is None


def test_the_filter_keeps_the_most_that_keeps_the_shares(laptop: Params):
    params = changed(
        laptop,
        mix=["sums", "stories"],
        generators={name: one.model_copy(update={"n_questions": 128}) for name, one in laptop.generators.items()},
        filter={
            "drop_easiest_frac": {"sums": 0.5, "stories": 0.0},
            "shares": {"sums": 1.0, "stories": 1.0},
            "n_questions": 1000,
        },
    )
    # 128 each, half are kept: 64 stories, 32 sums. Equal shares: 32 of each.
    assert kept_questions(params, 0.5, {}) == 64
    assert kept_questions(changed(params, filter={"n_questions": 40}), 0.5, {}) == 40


def test_rows_go_through_the_stages_as_in_the_paper(paper: dict[str, Work]):
    assert paper["generate"].rows == 2_000_000
    assert paper["judge"].rows == 1_598_000  # 20.1% fall to the language filter
    assert paper["respond"].rows == 1_000_000
    assert paper["reward"].rows == 5_000_000
    assert paper["respond"].generated == 5_000_000 * 453
    # 20,000 rewrites: 253 tokens in at 0.15, 400 out at 0.60 dollars a million
    assert paper["preferences"].api_usd == pytest.approx(20_000 * (253 * 0.15 + 400 * 0.60) / 1e6)
    assert "solver" not in paper  # taken as it is
    assert "reward_model" not in paper


def test_generators_of_two_sizes_count_by_their_mean(table: dict[str, Any]):
    params = load_profile("paper-math", ROOT)
    params.models[params.mix[0]] = "path:models/small-1B"
    found = workload(params, Assumptions(table["tokens"], table["keeps"]), table["sizes"], 14_969, OwnRows())
    assert {w.stage: w.billions for w in found}["generate"] == pytest.approx(4.3)  # 1 and 7.6


def test_pairs_of_the_solver_cost_its_answers_and_no_money(table: dict[str, Any]):
    params = load_profile("paper-math", ROOT)
    feedback = params.preferences.model_copy(update={"source": "solver"})
    params = params.model_copy(update={"preferences": feedback})
    found = {
        w.stage: w
        for w in workload(params, Assumptions(table["tokens"], table["keeps"]), table["sizes"], 14_969, OwnRows())
    }
    assert found["preferences"].api_usd == 0
    answer = min(table["tokens"]["response"], feedback.max_tokens)
    assert found["preferences"].generated == round(20_000 * feedback.solver.n_samples * answer)


def test_the_papers_dearest_stages_come_out_within_half_of_its_table(paper: dict[str, Work], table: dict[str, Any]):
    gpu = table["gpus"]["a100-40gb"]
    for stage in ("respond", "reward"):
        assert hours(paper[stage], gpu, table) == pytest.approx(table["table_4"][stage], rel=0.5)


def test_a_trained_solver_and_reward_model_are_counted(laptop: Params, table: dict[str, Any]):
    found = {
        w.stage: w
        for w in workload(laptop, Assumptions(table["tokens"], table["keeps"]), table["sizes"], 130, OwnRows())
    }
    assert found["solver"].samples == 130  # one pass
    assert found["qft"].rows == 80  # the seed mix of sums
    assert found["reward_model"].samples == 2 * 48 * 2
    assert found["respond"].generated == found["respond"].rows * 4 * 160  # max_tokens is the most that comes back


def test_a_choice_without_rewards_costs_no_reward_model(laptop: Params, table: dict[str, Any]):
    def found(params: Params) -> list[Work]:
        return workload(params, Assumptions(table["tokens"], table["keeps"]), table["sizes"], 130, OwnRows())

    with_rewards = found(laptop)
    models = dict(laptop.models) | {"reward": "hf:org/of-no-known-size@" + "0" * 40}
    without = found(changed(laptop, reward_select={"by": "majority", "waits_for": "responses"}).model_copy(update={"models": models}))  # fmt: skip
    rest = [work for work in with_rewards if work.stage not in ("fetch_model", "reward_model", "reward")]
    assert len(rest) == len(with_rewards) - 3
    assert without[1:] == rest
    assert (without[0].rows, with_rewards[0].rows) == (len(laptop.models) - 1, len(laptop.models))


def test_the_kept_run_without_qpo_is_estimated_from(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="0"):
        main(["estimate", "--profile", "gpu-1.5b", "--from-run", "reports/results/gpu-1.5b/metrics.json"])
    out = capsys.readouterr().out
    assert "is of a run without QPO." in out
    assert "does not know it of base, solver. Counted as 0." in out
    # 11,376 rows of the 8,192 questions that were answered, for the 24,576 of the profile.
    assert "instruct_tune          34,128" in out


def test_a_finished_run_is_estimated_again(table: dict[str, Any]):
    """With its own lengths and rate: no stage by more than twice, all by less than a tenth. Checks the arithmetic, not the rates."""
    h100 = table["gpus"]["h100"] | {"generated_tokens_per_s": [[0.135, RATE_OF_GPU_135M]]}
    run = ROOT / "reports" / "results" / "gpu-135m"
    params = load_profile("gpu-135m", ROOT)
    assumed = of_run(FinishedRun.at(run / "metrics.json"), Assumptions(table["tokens"], table["keeps"]), params.mix)
    took: Counter[str] = Counter()
    for name, seconds in read_json(run / "metrics.json")["seconds"].items():
        took[name.split("@")[0]] += seconds
    expected = {
        w.stage: 3600 * hours(w, h100, table)
        for w in workload(params, assumed, table["sizes"], 14_969, OwnRows())
        if w.billions is not None and w.stage in took  # that run is older than preference_check
    }
    assert len(expected) == 14
    assert all(0.5 < seconds / took[stage] < 2 for stage, seconds in expected.items())
    assert sum(expected.values()) == pytest.approx(sum(took[stage] for stage in expected), rel=0.1)


@pytest.mark.parametrize("profile", ["laptop", "gpu-135m", "gpu-1.5b", "gpu-1.5b-programs", "paper-math"])
@pytest.mark.parametrize("gpu", ["h100", "a100-40gb"])
def test_every_profile_can_be_estimated(
    profile: str, gpu: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="0"):
        main(["estimate", "--profile", profile, "--gpu", gpu, "--usd-per-hour", "2"])
    out = capsys.readouterr().out
    assert "total" in out
    assert ("Table 4" in out) == (profile == "paper-math")
    assert ("only the other lines are a test" in out) == (profile == "paper-math" and gpu == "a100-40gb")


@pytest.mark.parametrize(("profile", "unmeasured"), [("gpu-1.5b", "on this GPU for 1.5B"), ("paper-math", None)])
def test_an_estimate_in_8_bits_names_what_was_not_measured(
    profile: str, unmeasured: str | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.chdir(ROOT)
    with pytest.raises(SystemExit, match="0"):
        main(["estimate", "--profile", profile, "--gpu", "h100", "--quantization", "fp8"])
    out = capsys.readouterr().out
    assert ("fp8 was not measured" in out) == (unmeasured is not None)
    assert (unmeasured or "") in out


def test_an_estimate_loads_nothing_heavy():
    code = "import sys; from scalequest.cli import main\ntry: main(['estimate'])\nexcept SystemExit: print(*[m for m in ('torch', 'vllm', 'transformers', 'dvc', 'huggingface_hub') if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == ""


def test_the_check_of_the_pairs_has_a_line(laptop: Params, table: dict[str, Any]):
    """64 pairs per generator at most, two questions each, by the judge and by the scorer: 2 engines."""
    params = changed(
        laptop, mix=["sums", "stories"], preference_check={"n_pairs": 10}, qpo_questions={"n_questions": 100},
        judge={"style": "few_shot"},
    )  # fmt: skip
    token = table["tokens"] | {"question": 50, "template": 30, "judge_examples": 200, "verdict_few_shot": 2}
    found = {
        pairs: next(
            work
            for work in workload(
                params, Assumptions(token, table["keeps"] | {"pairs": pairs}), table["sizes"], 100, OwnRows()
            )
            if work.stage == "preference_check"
        )
        for pairs in (0.5, 0.05)
    }
    # 2 generators of 10 pairs: 40 questions. The judge writes 2 tokens on each and reads 50 + 200; the scorer, of the same
    # size, reads 50 + 30.
    assert found[0.5] == Work(
        "preference_check", 20, 0.135, generated=80, read=40 * 250 + 40 * 80, sequences=80, engines=2
    )
    assert found[0.05].rows == 10, "no more than there are"


# ------------------------------------------------------------------------------------------------------- a user's rows


def with_own_rows(params: Params, mix: list[str], respond: str = "filtered", **own: Any) -> Params:
    """A run with these generators and a user's files; nothing is dropped of `book` but a quarter by difficulty."""
    made = changed(
        params,
        filter={
            "shares": params.filter.shares | dict.fromkeys(own.get("questions", ()), 0.5),
            "drop_easiest_frac": params.filter.drop_easiest_frac | dict.fromkeys(own.get("questions", ()), 0.25),
            "n_questions": 1000,
        },
        respond={"questions": respond, "n_samples": 4},
        preference_check={"n_pairs": 10},
    )
    nothing: dict[str, Any] = {"questions": {}, "filtered": {}, "preferences": {}}
    return Params.model_validate(made.model_dump(by_alias=True) | {"mix": mix, "own": nothing | own})


def source(n: int | None, path: str = "book.jsonl", **more: Any) -> dict[str, Any]:
    return {"kind": "jsonl", "path": path, "n": n, "sha256": "0" * 64} | more


@pytest.fixture
def by_stage(table: dict[str, Any]) -> Any:
    def estimated(params: Params) -> dict[str, Work]:
        assumed = Assumptions(table["tokens"], {"pairs": 0.5, "screen": 0.8, "judge": 0.5, "reward_select": 0.5})
        own = OwnRows.of(params.own, params.respond.questions)
        return {work.stage: work for work in workload(params, assumed, table["sizes"], 130, own)}

    return estimated


LATER = ("screen", "judge", "difficulty", "respond", "reward", "instruct_tune")


@pytest.mark.parametrize(
    ("mix", "rows"),
    [
        # 100 questions; 80 pass the screen, 40 the judge, and 30 are not among the easiest. 4 answers to each; half stay.
        pytest.param([], (100, 80, 80, 30, 120, 15), id="without a generator"),
        # And 128 of stories, of which 51.2 pass. Of 0.6 to 0.5 the 30 of the book allow 36 of them: 66.
        pytest.param(["stories"], (228, 182, 182, 66, 264, 33), id="beside one"),
    ],
)
def test_own_questions_are_counted_from_the_screen_on(laptop: Params, by_stage: Any, mix: list[str], rows: Any):
    found = by_stage(with_own_rows(laptop, mix, questions={"book": source(100)}))
    assert tuple(found[stage].rows for stage in LATER) == rows
    assert {"qft", "qpo_questions", "preferences", "qpo", "generate"} & set(found) == (
        {"qft", "qpo_questions", "preferences", "qpo", "generate"} if mix else set()
    )
    assert found["preference_check"].rows == 10 * len(mix)


def test_own_filtered_questions_are_counted_from_the_answers_on(laptop: Params, by_stage: Any):
    params = with_own_rows(laptop, laptop.mix, "own/book", filtered={"book": source(500), "other": source(7)})
    assert tuple(by_stage(params)[stage].rows for stage in LATER[3:]) == (500, 2000, 250)
    unused = with_own_rows(laptop, laptop.mix, filtered={"book": source(500)})
    assert by_stage(unused)["respond"].rows == by_stage(with_own_rows(laptop, laptop.mix))["respond"].rows


def test_own_pairs_take_the_place_of_a_generators_rewrites(laptop: Params, by_stage: Any):
    """64 sampled questions per generator, half of which give a pair."""
    mix = ["sums", "stories"]
    found = by_stage(with_own_rows(laptop, mix, preferences={"sums": source(6)}))
    assert (found["qpo_questions"].rows, found["preferences"].rows, found["preferences"].engines) == (128, 64, 1)
    assert (found["qpo"].rows, found["preference_check"].rows) == (32 + 6, 10 + 6)
    both = by_stage(with_own_rows(laptop, mix, preferences={name: source(6) for name in mix}))
    assert (both["preferences"].rows, both["preferences"].engines, both["qpo"].rows) == (0, 0, 12)


def test_rows_of_a_file_without_n_are_counted(laptop: Params, by_stage: Any, tmp_path: Path):
    file = tmp_path / "book.jsonl"
    file.write_text(
        "".join(f'{{"question": "{i} + 1?", "split": "{"train" if i < 30 else "test"}"}}\n' for i in range(50))
    )
    pin = {"path": str(file), "sha256": file_hash(file)}
    assert by_stage(with_own_rows(laptop, [], questions={"book": source(None, **pin)}))["screen"].rows == 50
    some = source(None, **pin, where={"split": "train"})
    assert by_stage(with_own_rows(laptop, [], questions={"book": some}))["screen"].rows == 30
    gone = with_own_rows(laptop, [], questions={"book": source(None, str(tmp_path / "gone.jsonl"))})
    with pytest.raises(UserError, match=r"own\.questions\.book: .*gone\.jsonl: no such file"):
        by_stage(gone)
    with pytest.raises(UserError, match=r"own\.questions\.book\.n: null, and the file is on the hub"):
        by_stage(with_own_rows(laptop, [], questions={"book": UNKNOWN}))


UNKNOWN = {"kind": "hub", "repo": "a/b", "commit": "1" * 40, "file": "x.jsonl", "n": None, "sha256": None}


def test_a_number_that_is_not_known_may_be_assumed(laptop: Params, tmp_path: Path):
    gone = source(None, str(tmp_path / "gone.jsonl"))
    params = with_own_rows(
        laptop, ["sums"], "own/web", questions={"a": UNKNOWN, "b": gone, "c": source(5)},
        filtered={"web": UNKNOWN, "unused": gone}, preferences={"sums": gone},
    )  # fmt: skip
    assert OwnRows.of(params.own, params.respond.questions, 900) == OwnRows(
        {"a": 900, "b": 900, "c": 5}, 900, {"sums": 900},
        ("own.questions.a", "own.questions.b", "own.preferences.sums", "own.filtered.web"),
    )  # fmt: skip


def test_the_work_follows_from_the_numbers_and_reads_no_file(laptop: Params, table: dict[str, Any]):
    params = with_own_rows(laptop, ["sums"], "own/web", questions={"a": UNKNOWN}, filtered={"web": UNKNOWN}, preferences={"sums": UNKNOWN})  # fmt: skip
    own = OwnRows({"a": 100}, 70, {"sums": 6})
    found = workload(params, Assumptions(table["tokens"], table["keeps"]), table["sizes"], 130, own)
    rows = {work.stage: work.rows for work in found}
    assert (rows["screen"], rows["respond"], rows["qpo"]) == (160 + 100, 70, 6)


def test_a_run_without_generators_is_estimated_as_a_command_and_by_its_own_metrics(
    laptop: Params,
    table: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
):
    params = with_own_rows(laptop, [], questions={"book": source(100)})
    params = changed(params, filter={"n_questions": table["table_4_pairs"]})
    monkeypatch.setattr("scalequest.run.estimate.load_profile", lambda name: params)
    write_json(tmp_path / "screen.json", {"kept_frac": 0.9})
    write_json(tmp_path / "judge.json", {"solvable_frac": 0.8})
    write_json(tmp_path / "respond.json", {"mean_tokens": 77.0})
    write_json(tmp_path / "reward_select.json", {"kept": 5, "questions": 10})
    with pytest.raises(SystemExit, match="0"):
        main(["estimate", "--from-run", str(tmp_path)])
    estimate, table_4 = capsys.readouterr().out.split("Hours of one")
    lines = {line.split()[0]: line.split()[1] for line in estimate.splitlines() if line.strip()}
    # 100 * 0.9 * 0.8 * 0.75
    assert (lines["screen"], lines["judge"], lines["respond"]) == ("100", "90", "54")
    assert "generate" not in lines
    assert "judge and difficulty" in table_4
    found = of_run(FinishedRun.at(tmp_path), Assumptions(table["tokens"], table["keeps"]), [])
    assert (found.tokens["question"], found.keeps["pairs"]) == (table["tokens"]["question"], table["keeps"]["pairs"])
