"""The API optimizer against real servers: a scripted one for what goes wrong, and vLLM's own, killed in the middle."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from scalequest.errors import UserError
from scalequest.io import read_json, write_json
from scalequest.params import read_yaml
from scalequest.records import PREFERENCE, QUESTION, read_rows, write_rows
from scalequest.sampling.endpoint import ApiModel, retry_after
from tests.fakes import LAPTOP, ROOT
from tests.scripted import Endpoint, Reply, completion, error


def test_answers_come_in_the_order_of_the_questions(connect, endpoint: Endpoint):
    endpoint.pause_s = 0.01
    answers = connect(concurrency=4).complete([[f"q{i}"] for i in range(20)])
    assert [a.text for a in answers] == [f"re: q{i}" for i in range(20)]
    assert {(a.finish_reason, a.n_tokens) for a in answers} == {("stop", 4)}


def test_no_more_requests_are_under_way_than_allowed(connect, endpoint: Endpoint):
    endpoint.pause_s = 0.02
    connect(concurrency=3).complete([[f"q{i}"] for i in range(30)])
    # At most 3; and 3 at some time, or nothing was gained.
    assert endpoint.most_under_way == 3


def test_turns_settings_and_key_are_sent_and_the_key_is_kept_nowhere(connect, endpoint: Endpoint, tmp_path: Path):
    connect().complete([["a", "b", "c"]])
    messages = [("user", "a"), ("assistant", "b"), ("user", "c")]
    assert endpoint.bodies == [
        {"model": "m", "messages": [{"role": r, "content": c} for r, c in messages], "temperature": 0.0, "top_p": 1.0, "max_tokens": 32}
    ]  # fmt: skip
    assert endpoint.keys == ["Bearer secret"]
    assert "secret" not in (tmp_path / "answers.jsonl").read_text()


def test_without_a_key_none_is_sent(connect, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TEST_KEY")
    connect().complete([["a"]])
    assert endpoint.keys == [None]


def test_a_rerun_pays_nothing(connect, endpoint: Endpoint):
    first = connect()
    answers = first.complete([["a"], ["b"], ["a"]])
    assert len(endpoint.bodies) == 2  # equal requests are one
    # 2 requests of 10 and 4 tokens at 0.15 and 0.60 dollars a million: (20 * 0.15 + 8 * 0.60) / 1e6
    assert first.cost() == {
        "api_requests_paid": 2,
        "api_requests_without_usage": 0,
        "api_input_tokens": 20,
        "api_output_tokens": 8,
        "api_usd": pytest.approx(7.8e-6, abs=1e-6),
    }
    second = connect()
    assert second.complete([["a"], ["b"], ["a"]]) == answers
    assert len(endpoint.bodies) == 2
    assert second.cost()["api_requests_paid"] == 0


def test_other_words_settings_or_seed_are_another_request(connect, endpoint: Endpoint):
    connect(temperature=0.7).complete([["a"]])
    connect(temperature=0.7, seed=18).complete([["a"]])
    connect(temperature=0.8).complete([["a"]])
    connect(temperature=0.7).complete([["a"], ["b"]])
    assert len(endpoint.bodies) == 4
    assert len({body["seed"] for body in endpoint.bodies}) == 3  # temperature is no part of the seed


def test_at_temperature_0_the_runs_seed_costs_nothing(connect, endpoint: Endpoint):
    connect(seed=17).complete([["a"]])
    connect(seed=18).complete([["a"]])
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_a_server_that_is_busy_or_fails_is_asked_again(connect, endpoint: Endpoint, status: int):
    endpoint.script += [error(status, "not now"), error(status, "not now")]
    assert [a.text for a in connect().complete([["a"]])] == ["re: a"]
    assert len(endpoint.bodies) == 3


def test_the_server_says_how_long_to_wait(connect, endpoint: Endpoint):
    endpoint.script.append(error(429, "slow down", Retry_After="0.3"))
    started = time.monotonic()
    connect().complete([["a"]])
    assert time.monotonic() - started >= 0.3


@pytest.mark.parametrize(("value", "seconds"), [("2", 2.0), ("-1", 0.0), (None, None), ("", None), ("soon", None)])
def test_a_wait_is_a_number_of_seconds(value: str | None, seconds: float | None):
    assert retry_after(value) == seconds


def test_a_wait_may_be_a_date():
    wait = retry_after(format_datetime(datetime.now(UTC) + timedelta(seconds=30)))
    assert wait is not None
    assert 25 < wait <= 30


@pytest.mark.parametrize(
    ("reply", "tries", "expected"),
    [
        pytest.param(error(401, "bad key"), 1, "wants a valid key (401: bad key); the environment variable TEST_KEY holds another", id="key"),
        pytest.param(error(403, "not yours"), 1, "wants a valid key (403: not yours)", id="not_allowed"),
        pytest.param(error(404, "no such model"), 1, "does not know the model 'm', or is no such endpoint (404: no such model)", id="model"),
        pytest.param(error(400, "max_tokens is too large"), 1, "refuses the request (400: max_tokens is too large)", id="bad_request"),
        pytest.param(error(429, "pay", "insufficient_quota"), 1, "refuses the request (429: pay insufficient_quota)", id="no_money"),
        pytest.param(error(503, "down"), 3, "gave no answer in 3 tries (503: down); check that it runs", id="down"),
        pytest.param((200, {}, {"hello": 1}), 1, "something that is no chat completion: '{\"hello\": 1}'", id="no_completion"),
        pytest.param((200, {}, b"<html>"), 1, "something that is no chat completion: '<html>'", id="no_json"),
    ],
)  # fmt: skip
def test_what_the_endpoint_refuses_is_told_and_final_errors_cost_one_try(
    connect, endpoint: Endpoint, reply: Reply, tries: int, expected: str
):
    endpoint.script += [reply] * tries
    with pytest.raises(UserError) as caught:
        connect().complete([["a"]])
    assert expected in str(caught.value)
    assert len(endpoint.bodies) == tries


def test_a_missing_key_is_told_apart_from_a_wrong_one(connect, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("TEST_KEY")
    endpoint.script.append(error(401, "no key"))
    with pytest.raises(UserError, match="TEST_KEY is not set"):
        connect().complete([["a"]])


def test_a_server_that_does_not_answer_is_given_up_after_the_retries(connect, endpoint: Endpoint):
    endpoint.pause_s = 0.5
    with pytest.raises(UserError, match=r"gave no answer in 2 tries \(no answer within 0\.1 s\)"):
        connect(timeout_s=0.1, retries=1).complete([["a"]])


def test_nothing_listening_is_told(connect, endpoint: Endpoint):
    endpoint.server.shutdown()
    endpoint.server.server_close()
    with pytest.raises(UserError, match=r"gave no answer in 3 tries \(ConnectError"):
        connect().complete([["a"]])


@pytest.mark.parametrize(
    "reply",
    [completion("I", refusal="I cannot"), completion("half", "content_filter"), completion(None)],
    ids=["own", "filter", "no_text"],
)
def test_a_refusal_is_an_outcome_of_its_own(connect, endpoint: Endpoint, reply: Reply):
    endpoint.script.append(reply)
    answer = connect().complete([["a"]])[0]
    assert (answer.text, answer.finish_reason) == ("", "refusal")


# ------------------------------------------------------------------------- one row's fault, or everybody's


def asked(connect: Callable[..., ApiModel], n: int = 3, **settings: Any) -> tuple[ApiModel, list[tuple[str, str]]]:
    """What ``n`` questions, asked one after the other, got: text and finish reason."""
    client = connect(concurrency=1, **settings)
    return client, [(a.text, a.finish_reason) for a in client.complete([[f"q{i}"] for i in range(n)])]


REST = [("re: q1", "stop"), ("re: q2", "stop")]


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        pytest.param(error(400, "The response was filtered", "content_filter"), "refusal", id="azures_filter"),
        pytest.param(error(400, "triggering Azure OpenAI's content management policy"), "refusal", id="policy"),
        pytest.param(error(403, "Your input was flagged", "moderation"), "refusal", id="moderation"),
        pytest.param(error(400, "too long", "context_length_exceeded"), "too_long", id="code"),
        pytest.param(error(400, "This model's maximum context length is 4096 tokens"), "too_long", id="words"),
        pytest.param(error(413, "payload"), "too_long", id="payload"),
        pytest.param(error(400, "invalid character"), "refusal", id="bad_request"),
        pytest.param(error(422, "unprocessable"), "refusal", id="unprocessable"),
        pytest.param(error(451, "legal"), "refusal", id="legal"),
        pytest.param((200, {}, {"error": {"code": "content_filter", "message": "no"}}), "refusal", id="filter_in_200"),
        pytest.param((200, {}, {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 0}}), "refusal", id="no_choice"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_one_refused_request_is_one_rows_outcome(connect, endpoint: Endpoint, reply: Reply, reason: str, first: bool):
    endpoint.script += [reply] if first else [completion("re: q0"), reply]
    got = asked(connect)[1]
    assert got == ([("", reason), *REST] if first else [("re: q0", "stop"), ("", reason), REST[1]])
    assert len(endpoint.bodies) == 3


def test_a_refused_request_is_asked_again_by_a_rerun_and_the_answered_ones_are_not(connect, endpoint: Endpoint):
    endpoint.script.append(error(400, "no", "content_filter"))
    asked(connect)
    assert asked(connect)[1][0] == ("re: q0", "stop")
    assert len(endpoint.bodies) == 4


def test_when_every_request_is_refused_the_run_ends_early(connect, endpoint: Endpoint):
    endpoint.script += [error(400, "unknown parameter: top_p")] * 100
    with pytest.raises(UserError, match="refuses the request \\(400: unknown parameter: top_p\\)"):
        asked(connect, n=100)
    assert len(endpoint.bodies) < 20


def test_when_every_request_is_filtered_that_is_their_outcome(connect, endpoint: Endpoint):
    endpoint.script += [error(400, "no", "content_filter")] * 12
    assert asked(connect, n=12)[1] == [("", "refusal")] * 12


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((200, {}, {"error": {"code": 502, "message": "bad gateway"}}), id="error_in_200"),
        pytest.param((200, {}, {"error": {"message": "Provider returned error"}}), id="error_without_code"),
        pytest.param((200, {}, {"error": "overloaded"}), id="error_of_words"),
        pytest.param((200, {}, {"choices": [{"error": {"code": 502, "message": "x"}, "message": {"content": "ha"}}]}), id="in_the_choice"),
        pytest.param(completion("half", "error"), id="ended_by_an_error"),
        pytest.param(completion("half", "abort"), id="aborted"),
        pytest.param(completion("half", "insufficient_system_resource"), id="no_resources"),
        pytest.param(error(529, "overloaded"), id="529"),
        pytest.param(error(524, "timeout"), id="524"),
    ],
)  # fmt: skip
def test_a_server_that_failed_in_between_is_asked_again(connect, endpoint: Endpoint, reply: Reply):
    endpoint.script.append(reply)
    assert asked(connect)[1] == [("re: q0", "stop"), *REST]
    assert len(endpoint.bodies) == 4


def test_a_page_that_is_no_completion_is_asked_again_once_answers_came(connect, endpoint: Endpoint):
    endpoint.script += [completion("re: q0"), (200, {}, b"<html>502</html>")]
    assert asked(connect)[1] == [("re: q0", "stop"), *REST]


def test_a_row_that_breaks_the_server_every_time_is_its_own_outcome(connect, endpoint: Endpoint):
    """Two at once: while one is tried in vain the other ones are answered."""

    def answer(body: dict[str, Any]) -> Reply | None:
        if body["messages"][-1]["content"] != "q0":
            return None
        time.sleep(0.1)
        return error(500, "crash")

    endpoint.answer = answer
    client = connect(concurrency=2)
    answers = client.complete([[f"q{i}"] for i in range(6)])
    assert [a.finish_reason for a in answers] == ["refusal", *["stop"] * 5]


def test_rows_under_way_when_the_server_dies_are_not_to_blame(connect, endpoint: Endpoint):
    """Some are answered while they wait for their first try; then nothing is, and the run ends."""
    calls = iter(range(1_000))

    def answer(_: dict[str, Any]) -> Reply | None:
        if next(calls) < 4:
            return None
        time.sleep(0.02)
        return error(503, "down")

    endpoint.answer = answer
    with pytest.raises(
        UserError, match=r"gave no answer in 5 tries \(503: down\).*\(4 of 8 answers came and are kept\)"
    ):
        connect(concurrency=8, retries=4).complete([[f"q{i}"] for i in range(8)])


@pytest.mark.parametrize(
    ("reply", "expected"),
    [
        pytest.param(error(402, "Payment Required"), "look at the account's limits and balance", id="402"),
        pytest.param(
            error(403, "Your account is not active, check your billing"), "look at the account's", id="billing"
        ),
        pytest.param(
            (200, {}, {"error": {"code": 401, "message": "User not found"}}), "wants a valid key", id="key_in_200"
        ),
        pytest.param(error(405, "Method Not Allowed"), "or is no such endpoint", id="method"),
        pytest.param((308, {"Location": "/v2"}, b""), "or is no such endpoint", id="redirect"),
    ],
)
def test_what_no_request_can_pass_ends_the_run_also_later(connect, endpoint: Endpoint, reply: Reply, expected: str):
    endpoint.script += [completion("re: q0"), reply]
    with pytest.raises(UserError, match=rf"{expected}.*\(1 of 3 answers came and are kept\)"):
        asked(connect)
    assert len(endpoint.bodies) == 2


@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        pytest.param({"message": {"content": "Hm"}, "finish_reason": "eos_token"}, ("Hm", "stop"), id="eos_token"),
        pytest.param({"message": {"content": "Hm"}, "finish_reason": "end_turn"}, ("Hm", "stop"), id="end_turn"),
        pytest.param({"message": {"content": "Hm"}, "finish_reason": "stop_sequence"}, ("Hm", "stop"), id="stop_sequence"),
        pytest.param({"message": {"content": "Hm"}, "finish_reason": None}, ("Hm", "stop"), id="null"),
        pytest.param({"message": {"content": "Hm"}}, ("Hm", "stop"), id="missing"),
        pytest.param({"message": {"content": "Hm"}, "finish_reason": "MAX_TOKENS"}, ("Hm", "length"), id="max_tokens"),
        pytest.param({"message": {"content": "Hm"}, "finish_reason": "model_length"}, ("Hm", "length"), id="model_length"),
        pytest.param({"message": {"content": None}, "finish_reason": "length"}, ("", "length"), id="thought_until_the_limit"),
        pytest.param({"message": {}, "finish_reason": "length"}, ("", "length"), id="no_content_cut"),
        pytest.param({"message": {"content": None}, "finish_reason": "stop"}, ("", "refusal"), id="nothing"),
        pytest.param({"message": {"content": ""}, "finish_reason": "stop"}, ("", "stop"), id="empty"),
        pytest.param({"message": {"content": "Hm"}, "finish_reason": "SAFETY"}, ("", "refusal"), id="safety"),
        pytest.param({"message": {"content": None}, "finish_reason": "tool_calls"}, ("", "refusal"), id="tool"),
        pytest.param(
            {"message": {"content": [{"type": "text", "text": "H"}, {"type": "text", "text": "m"}]}, "finish_reason": "stop"},
            ("Hm", "stop"), id="parts",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize(
    "usage", [{"usage": None}, {}, {"usage": {"prompt_tokens": 3}}], ids=["null", "missing", "half"]
)
def test_a_paid_reply_is_kept_whatever_is_missing_in_it(
    connect, endpoint: Endpoint, choice: dict, expected: tuple[str, str], usage: dict
):
    endpoint.script.append((200, {}, {"choices": [choice]} | usage))
    client, got = asked(connect)
    assert got == [expected, *REST]
    assert client.cost()["api_requests_without_usage"] == 1
    assert client.cost()["api_output_tokens"] == 8, "what is unknown counts nothing"
    assert asked(connect)[1] == got
    assert len(endpoint.bodies) == 3, "it is not paid for again"


def test_a_line_of_the_journal_that_is_damaged_is_asked_again(
    connect, endpoint: Endpoint, tmp_path: Path, caplog: pytest.LogCaptureFixture
):
    first = asked(connect)[1]
    file = tmp_path / "answers.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(lines[0] + b"\x00\x00 rubbish\n" + lines[2])
    assert asked(connect)[1] == first
    assert len(endpoint.bodies) == 4
    assert "answers.jsonl:2: unreadable" in caplog.text


def test_what_was_answered_before_an_error_is_kept(connect, endpoint: Endpoint):
    endpoint.script += [completion("one"), completion("two"), error(401, "key withdrawn")]
    with pytest.raises(UserError, match=r"\(2 of 4 answers came and are kept\)"):
        connect(concurrency=1).complete([[c] for c in "abcd"])
    client = connect()
    assert [a.text for a in client.complete([[c] for c in "abcd"])] == ["one", "two", "re: c", "re: d"]
    assert client.cost()["api_requests_paid"] == 2


# -------------------------------------------------------------------------------------------------------- vLLM's server


ASK = """
import json, sys
from pathlib import Path
from scalequest.sampling.endpoint import ApiModel
from scalequest.errors import UserError
from scalequest.params import Sampling
from scalequest.run.profile import load_profile
url, journal, n = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
api = load_profile().runtime.api.model_copy(update={"concurrency": 2, "retries": 1})
client = ApiModel(url, "tiny", Sampling(temperature=1.0, top_p=1.0, max_tokens=24, shard_size=1), api, journal, 17)
try:
    answers = client.complete([[f"What is {i} + {i}?"] for i in range(n)])
except UserError as error:
    sys.exit(f"error: {error}")
print(json.dumps({"texts": [a.text for a in answers]} | client.cost()))
"""


def rewrite_with(url: str, folder: Path) -> None:
    """The stage itself, through the server: every question is rewritten, and what makes no pair says why."""
    rows = [
        {"id": f"sums/0/{i}", "generator": "sums", "question": f"What is {i} + 4?", "completion": "", "finish_reason": "stop",
         "n_tokens": 5, "seed": 1} for i in range(24)
    ]  # fmt: skip
    write_rows(folder / "questions", rows, QUESTION)
    params = read_yaml(LAPTOP)
    params["models"]["optimizer"] = f"api:{url}#tiny"
    # What the tiny model can: some sum, of a few tokens.
    params["preferences"] |= {"max_tokens": 24, "temperature": 1.0, "max_growth": 50.0, "min_numbers": 0.0}
    write_json(folder / "params.yaml", params)
    files = {name: str(folder / name) for name in ("optimizer", "questions", "out.parquet", "metrics.json")}
    subprocess.run(
        [sys.executable, "-m", "stages.preferences", "--generator", "sums", "--optimizer", files["optimizer"], "--questions",
         files["questions"], "--out", files["out.parquet"], "--metrics", files["metrics.json"]],
        cwd=ROOT, check=True, env=os.environ | {"SCALEQUEST_PARAMS": str(folder / "params.yaml")},
    )  # fmt: skip
    made = read_rows(folder / "out.parquet", PREFERENCE)
    assert [row["id"] for row in made] == [row["id"] for row in rows]
    assert {row["verdict"] for row in made} >= {"kept"}
    assert len({row["completion"] for row in made}) > 1
    assert read_json(folder / "metrics.json")["pairs"] == sum(row["verdict"] == "kept" for row in made)


@pytest.mark.slow
def test_vllm_and_client_killed_in_the_middle_the_rerun_pays_for_what_is_missing(model: Path, tmp_path: Path):
    n = 400
    journal = tmp_path / "answers.jsonl"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    url = f"http://127.0.0.1:{port}/v1"

    def start_server() -> subprocess.Popen[bytes]:
        # What `vllm serve` runs; that command itself asks for a package named "vllm", which the CPU build is not. On a CPU
        # it dies of a prompt that is read in pieces beside a request with a seed (scalequest/sampling/vllm.py).
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model), "--served-model-name", "tiny",
                   "--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", "1024", "--enforce-eager",
                   "--no-enable-chunked-prefill"]  # fmt: skip
        environment = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "HF_HUB_OFFLINE": "1", "VLLM_NO_USAGE_STATS": "1"}  # fmt: skip
        log = (tmp_path / "server.log").open("ab")
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        deadline = time.monotonic() + 180
        while time.monotonic() < deadline and server.poll() is None:
            try:
                if httpx.get(f"http://127.0.0.1:{port}/health").is_success:
                    return server
            except httpx.TransportError:
                time.sleep(0.5)
        pytest.fail(f"vLLM's server did not start: {(tmp_path / 'server.log').read_text()[-3000:]}")

    def ask() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-c", ASK, url, str(journal), str(n)], cwd=ROOT, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )  # fmt: skip

    def wait_for(lines: int) -> None:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and (not journal.exists() or journal.read_bytes().count(b"\n") < lines):
            time.sleep(0.002)

    def kill(process: subprocess.Popen[Any]) -> None:
        """The process and the children that vLLM starts, all at once, as a crash does."""
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()

    server = start_server()
    try:
        client = ask()
        wait_for(20)
        client.kill()
        client.communicate()
        after_client = journal.read_bytes().count(b"\n")
        assert 20 <= after_client < n

        client = ask()
        wait_for(after_client + 20)
        kill(server)
        _, errors = client.communicate(timeout=60)
        assert client.returncode == 1
        assert f"{url} gave no answer in 2 tries" in errors
        after_server = journal.read_bytes().count(b"\n")
        assert after_client + 20 <= after_server < n

        server = start_server()
        out, errors = ask().communicate(timeout=120)
        result = json.loads(out)
        assert len(result["texts"]) == n, errors
        assert all(result["texts"])
        assert result["api_requests_paid"] == n - after_server
        assert result["api_output_tokens"] > 0
        rewrite_with(url, tmp_path)
    finally:
        kill(server)

    # All answers are data now: no server is needed.
    again = json.loads(ask().communicate(timeout=60)[0])
    assert again["texts"] == result["texts"]
    assert again["api_requests_paid"] == 0
