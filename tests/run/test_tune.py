from collections import deque
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest

import scalequest.run.tune as tune
from scalequest.errors import UserError
from scalequest.params import Params
from scalequest.run.tune import best_of, chosen_values, fitting_length, lengths, limited_to, prompts, steady_pace
from tests.fakes import changed


class FakeLLM:
    """An engine of which each step writes a token per sequence and takes a second."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, sequences: int, steps: int) -> None:
        self.now, self.left, self.aborted = 0.0, steps, []
        monkeypatch.setattr(tune.time, "perf_counter", lambda: self.now)
        self.scheduler = SimpleNamespace(
            waiting=deque(range(steps)), max_num_running_reqs=64, has_requests=lambda: not self.aborted
        )

        def get_output() -> Any:
            self.now += 1.0
            self.left -= 1
            self.scheduler.waiting.popleft()
            return SimpleNamespace(outputs=[SimpleNamespace(new_token_ids=[7])] * sequences)

        class Core:
            engine_core = SimpleNamespace(scheduler=self.scheduler)

            def get_output(self) -> Any:
                return get_output()

        def abort(names: list[str], internal: bool) -> None:
            self.aborted += names

        self.llm_engine = SimpleNamespace(
            engine_core=Core(), abort_request=abort, output_processor=SimpleNamespace(request_states={"a": 1, "b": 2}),
        )  # fmt: skip

    def generate(self) -> str:
        while self.left:
            self.llm_engine.engine_core.get_output()
        return "done"


@pytest.mark.parametrize(
    ("steps", "seconds", "tokens", "counted", "ended"),
    [
        pytest.param(100, 5.0, 50, 5, True, id="a window of 5 steps, after 3 that are not counted"),
        pytest.param(8, 60.0, 50, 5, True, id="nothing waits after 8 steps, so the last sequences are not counted"),
        pytest.param(2, 5.0, 0, 0, False, id="a call that ends before counting begins"),
    ],
)
def test_the_middle_of_a_call_is_counted(
    steps: int, seconds: float, tokens: int, counted: int, ended: bool, monkeypatch: pytest.MonkeyPatch
):
    llm = FakeLLM(monkeypatch, sequences=10, steps=steps)
    pace = steady_pace(llm, llm.generate, 3, seconds)
    assert (pace.tokens, pace.steps) == (tokens, counted)
    assert pace.tokens_per_s == (10.0 if counted else 0.0)
    assert llm.aborted == (["a", "b"] if ended else [])
    assert "get_output" not in vars(llm.llm_engine.engine_core), "the engine is as before"


def test_other_errors_are_not_hidden(monkeypatch: pytest.MonkeyPatch):
    llm = FakeLLM(monkeypatch, 1, 5)

    def broken() -> None:
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        steady_pace(llm, broken, 1, 1.0)
    assert "get_output" not in vars(llm.llm_engine.engine_core)


def test_the_scheduler_is_limited_for_a_while(monkeypatch: pytest.MonkeyPatch):
    llm = FakeLLM(monkeypatch, 1, 5)
    with limited_to(llm, 8):
        assert llm.scheduler.max_num_running_reqs == 8
    with limited_to(llm, 100):  # the engine has room for 64
        assert llm.scheduler.max_num_running_reqs == 64
    llm.scheduler.max_num_active_reqs = 64  # newer versions have this beside it
    with limited_to(llm, 8):
        assert (llm.scheduler.max_num_active_reqs, llm.scheduler.max_num_running_reqs) == (8, 64)
    assert llm.scheduler.max_num_active_reqs == 64


@pytest.mark.parametrize("mean", [2, 53, 453])
def test_lengths_have_their_mean_in_every_part(mean: int):
    found = lengths(mean, 1000)
    assert min(found) >= 1
    assert max(found) <= 2 * mean - 1
    for part in (found[:100], found[450:550], found):
        assert sum(part) / len(part) == pytest.approx(mean, rel=0.05)


def test_answers_to_one_question_share_its_prompt():
    found = prompts(100, 6, 7, samples=3)
    assert [len(prompt) for prompt in found] == [6] * 7
    assert found[0] == found[1] == found[2] != found[3] == found[5] != found[6]


@pytest.mark.parametrize(
    ("rates", "best"),
    [
        ({64: 100.0, 128: 200.0, 256: 205.0}, 128),  # 200 is within 3% of 205
        ({64: 100.0, 128: 190.0, 256: 205.0}, 256),
        ({256: 90.0, 64: 100.0}, 64),  # more than fits into memory is slower
        ({8: 0.0}, 8),
    ],
)
def test_the_smallest_of_equal_rates_is_best(rates: dict[int, float], best: int):
    assert best_of([{"max_num_seqs": n, "tokens_per_s": rate} for n, rate in rates.items()]) == best


def test_values_are_numbers():
    assert chosen_values(None, gpu=True)[-1] == 1024
    assert chosen_values(None, gpu=False)[-1] == 64
    assert chosen_values("16, 8,16", gpu=True) == [8, 16]
    for text in ("", "8,", "0", "-1", "8;16", "1.5"):
        with pytest.raises(UserError, match="expected whole numbers above 0"):
            chosen_values(text, gpu=True)


def test_answers_fit_into_the_context(laptop: Params):
    long = changed(laptop, engine={"max_model_len": 4096}, respond={"max_tokens": 2048})
    assert fitting_length(None, long, 83) == 453
    assert fitting_length(None, changed(long, respond={"max_tokens": 160}), 83) == 80  # twice 80 is max_tokens
    assert fitting_length(None, changed(long, engine={"max_model_len": 283}), 83) == 100
    assert fitting_length(600, long, 83) == 600
    bad: list[Callable[[], int]] = [lambda: fitting_length(2100, long, 83), lambda: fitting_length(0, long, 83)]
    for call in bad:
        with pytest.raises(UserError, match=r"expected room for twice the new tokens in engine.max_model_len 4096"):
            call()
