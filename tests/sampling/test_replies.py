"""What servers say that call themselves OpenAI-compatible: pure reading, and the client in front of a scripted server."""

import gzip
import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from scalequest.errors import UserError
from scalequest.sampling import endpoint as endpoint_module
from scalequest.sampling.endpoint import asked_pause
from scalequest.sampling.replies import (
    ADDRESS,
    AGAIN,
    DENIED,
    KEY,
    MONEY,
    REFUSAL,
    UNKNOWN,
    classify,
    error_codes,
    error_in,
    error_message,
    read_answer,
    whole_text,
)
from tests.scripted import Endpoint, Reply, completion, error

TOO_LONG = "too_long"


def whose(status: int, body: Any) -> str:
    """Whose fault a reply is, as the client reads it."""
    found = error_in(body)
    number, codes = error_codes(found)
    status_or_none = number if status == 200 or (status == 400 and number) else status
    return classify(status_or_none, codes, error_message(found))


def coded(code: Any = None, message: str = "m", **fields: Any) -> dict[str, Any]:
    return {"error": {"message": message, "code": code} | fields}


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        # Words in the place of a number, in a reply of status 200.
        (200, coded("server_error"), AGAIN),
        (200, coded("rate_limit"), AGAIN),
        (200, coded("rate_limit_exceeded"), AGAIN),
        (200, coded("overloaded"), AGAIN),
        (200, coded(type="overloaded_error"), AGAIN),
        (200, coded(type="server_error"), AGAIN),
        (200, coded(type="RateLimitError"), AGAIN),
        (200, coded(type="InternalServerError", code=None), AGAIN),
        (200, coded("Service Unavailable"), AGAIN),
        (200, coded(status="UNAVAILABLE", code=503), AGAIN),
        (200, coded(status="RESOURCE_EXHAUSTED", code=429), AGAIN),
        (200, coded("engine_overloaded"), AGAIN),
        (200, coded("request_timeout"), AGAIN),
        (200, coded("502"), AGAIN),
        (200, coded("HTTP 503"), AGAIN),
        (200, coded(1301), AGAIN),  # a number of the server's own
        (200, coded(1301, "the content was flagged"), REFUSAL),
        (200, {"error": "overloaded"}, AGAIN),
        (200, {"error": "Provider returned error"}, AGAIN),
        (200, {"error": {}} | coded(), AGAIN),
        (200, {"errors": [{"code": "rate_limit", "message": "m"}]}, AGAIN),
        (200, {"object": "error", "message": "m", "type": "internal_error"}, AGAIN),
        (200, coded("content_filter"), REFUSAL),
        (200, coded("context_length_exceeded"), TOO_LONG),
        (200, coded("invalid_request_error"), UNKNOWN),
        (200, coded(type="invalid_request_error"), UNKNOWN),
        (200, coded("invalid_api_key"), KEY),
        (200, coded(type="authentication_error"), KEY),
        (200, coded("insufficient_quota"), MONEY),
        (200, coded(type="insufficient_balance"), MONEY),
        (200, coded("model_not_found"), DENIED),
        (200, coded(type="permission_error"), DENIED),
        (200, coded(404), DENIED),
        (200, coded("403"), DENIED),
        # The same beside an error status.
        (400, coded(type="rate_limit_error"), AGAIN),
        (400, coded("server_error"), AGAIN),
        (400, coded(503), AGAIN),
        (400, coded("429"), AGAIN),
        (403, coded("rate_limit_exceeded"), AGAIN),
        (400, coded(type="invalid_request_error", code=None), UNKNOWN),
        (400, coded("prompt_too_weird"), UNKNOWN),
        (400, coded(None, "This prompt is too long: context length 4096"), TOO_LONG),
        (500, coded("content_filter"), REFUSAL),
        (503, coded(None, "billing service unavailable"), AGAIN),
        (500, coded(None, "safety checker crashed"), AGAIN),
        # The free tier's rate limit, with an advice to pay: a wait, no empty account.
        (429, coded("rate_limit_exceeded", "Rate limit reached. Visit https://platform.example/account/billing to raise it"), AGAIN),
        (429, coded(None, "Rate limit reached. See https://platform.example/account/billing"), AGAIN),
        (429, coded("insufficient_quota", "You exceeded your current quota, please check your plan and billing details"), MONEY),
        (429, coded(None, "You exceeded your current quota"), MONEY),
        (403, coded(None, "flagged: asks for billing data"), REFUSAL),
        (404, coded(None, "the model gpt-safety does not exist"), DENIED),
        (403, None, DENIED),
        (405, None, ADDRESS),
        (307, None, ADDRESS),
        (402, None, MONEY),
        (401, None, KEY),
        (413, None, TOO_LONG),
        (422, {"detail": [{"msg": "bad"}]}, UNKNOWN),
        (501, None, UNKNOWN),
        *[(status, None, AGAIN) for status in (408, 409, 425, 429, 500, 502, 503, 504, 520, 522, 524, 529)],
    ],
)  # fmt: skip
def test_whose_fault_it_is(status: int, body: Any, expected: str) -> None:
    assert whose(status, body) == expected


@pytest.mark.parametrize(
    ("found", "text", "expected"),
    [
        ({"message": "a\nb\x1b[31m\u202ec", "code": None}, "", "a b [31m c"),
        ({"message": None, "code": 5}, "", "5"),
        ({"message": {"x": 1}}, "", "{'x': 1}"),
        ("words", "", "words"),
        (None, "<html>\n<body>502</body>", "<html> <body>502</body>"),
        (None, "", "no message"),
        ({"message": "x" * 900}, "", "x" * 200),
    ],
)
def test_a_message_is_one_printable_line(found: Any, text: str, expected: str) -> None:
    assert error_message(found, text) == expected


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "2"}, 2.0),
        ({"Retry-After": "1.5"}, 1.5),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}, 0.0),
        ({"Retry-After": "Wed, 99 Oct 99999 07:28:00 GMT"}, None),
        ({"Retry-After-Ms": "250", "Retry-After": "1"}, 0.25),
        ({"Retry-After-Ms": "x", "Retry-After": "1"}, 1.0),
    ],
)
def test_how_long_the_server_asks_to_wait(headers: dict[str, str], seconds: float | None) -> None:
    assert asked_pause(headers) == seconds


def test_a_date_to_wait_for() -> None:
    date = format_datetime(datetime.now(UTC) + timedelta(seconds=30), usegmt=True)
    assert 25 < (asked_pause({"Retry-After": date}) or 0) <= 30


@pytest.mark.parametrize(
    ("message", "end", "expected"),
    [
        ({"content": [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "Q?"}]}, "stop", ("Q?", "stop")),
        ({"content": [{"type": "reasoning", "text": "hm"}, {"type": "output_text", "text": "Q?"}]}, "stop", ("Q?", "stop")),
        ({"content": [{"type": "text", "text": {"value": "Q?"}}]}, "stop", ("Q?", "stop")),
        ({"content": ["Q", "?"]}, "stop", ("Q?", "stop")),
        ({"content": {"type": "text", "text": "Q?"}}, "stop", ("Q?", "stop")),
        ({"content": []}, "stop", ("", "refusal")),
        ({"content": [{"type": "text", "text": None}]}, "stop", ("", "refusal")),
        ({"content": [{"type": "refusal", "refusal": "I cannot"}]}, "stop", ("", "refusal")),
        ({"content": [{"type": "thinking", "thinking": "hm"}]}, "length", ("", "length")),
        ({"content": 7}, "stop", ("7", "stop")),
        ({"content": "a\ud83d", "refusal": ""}, "stop", ("a\ufffd", "stop")),
        ({"content": "\ud83d\ude00"}, "stop", ("\U0001f600", "stop")),
        ({"content": "nul\x00"}, {"type": "stop"}, ("nul\x00", "stop")),
        (None, "stop", ("", "refusal")),
        ({}, None, ("", "refusal")),
    ],
)  # fmt: skip
def test_the_text_of_a_choice(message: Any, end: Any, expected: tuple[str, str]) -> None:
    answer = read_answer({"choices": [{"message": message, "finish_reason": end}]})
    assert (answer.text, answer.finish_reason) == expected
    answer.text.encode()  # every file can hold it


@pytest.mark.parametrize("body", [{"choices": None}, {"choices": []}, {"choices": {}}])
def test_no_choice_is_a_refusal(body: dict[str, Any]) -> None:
    assert read_answer(body | {"usage": {"prompt_tokens": 3, "completion_tokens": 0}}).finish_reason == "refusal"


def test_a_completion_of_the_older_form_is_an_answer() -> None:
    assert read_answer({"choices": [{"text": "Q?", "finish_reason": "stop"}]}).text == "Q?"


@pytest.mark.parametrize("body", [None, [], "x", {}, {"hello": 1}, {"choices": ["x"]}, {"choices": [{}]}, {"choices": [{"message": "x"}]}, {"choices": 3}])  # fmt: skip
def test_what_is_no_chat_completion(body: Any) -> None:
    with pytest.raises((KeyError, TypeError, AttributeError)):
        read_answer(body)


@pytest.mark.parametrize(
    ("usage", "counts"),
    [
        ({"prompt_tokens": 3, "completion_tokens": 4}, (3, 4)),
        ({"input_tokens": 3, "output_tokens": 4}, (3, 4)),
        ({"prompt_tokens": 3.0, "completion_tokens": 4.5}, (3, None)),
        ({"prompt_tokens": -3, "completion_tokens": True}, (None, None)),
        ({"prompt_tokens": 10**400, "completion_tokens": float("nan")}, (None, None)),
        ({"prompt_tokens": "3", "completion_tokens": float("inf")}, (None, None)),
        ([], (None, None)),
        ("many", (None, None)),
    ],
)
def test_token_counts(usage: Any, counts: tuple[int | None, int | None]) -> None:
    answer = read_answer({"choices": [{"message": {"content": "Q?"}}], "usage": usage})
    assert (answer.input_tokens, answer.output_tokens) == counts


def test_a_text_without_halves_of_pairs_stays_itself() -> None:
    assert whole_text("πthon 😀 \x00\uffff") == "πthon 😀 \x00\uffff"


# ------------------------------------------------------------------------------------------- in front of a server

REST = [("re: q1", "stop"), ("re: q2", "stop")]


def asked(client: Any, n: int = 3) -> list[tuple[str, str]]:
    return [(a.text, a.finish_reason) for a in client.complete([[f"q{i}"] for i in range(n)])]


@pytest.mark.parametrize(
    "reply",
    [
        pytest.param((200, {}, {"error": {"code": "server_error", "message": "m"}}), id="server_error"),
        pytest.param((200, {}, {"error": {"type": "rate_limit", "message": "m"}}), id="rate_limit"),
        pytest.param((400, {}, {"error": {"type": "overloaded_error", "message": "m"}}), id="overloaded"),
        pytest.param(error(425, "Too Early"), id="425"),
        pytest.param(error(409, "Conflict"), id="409"),
        pytest.param((200, {}, b'{"choices": [{"message": {"content": "ha'), id="cut_json"),
        pytest.param((200, {}, b""), id="empty"),
        pytest.param((200, {}, b"  \n"), id="blank"),
        pytest.param((200, {"Content_Length": "9000"}, b'{"choices": ['), id="cut_connection"),
        pytest.param((200, {"Content_Encoding": "gzip"}, b"no gzip at all"), id="gzip_garbage"),
        pytest.param((200, {"Content_Encoding": "gzip"}, gzip.compress(b"{}" * 99)[:-9]), id="gzip_cut"),
        pytest.param((502, {"Content_Type": "text/html"}, b"<html>Bad Gateway</html>"), id="html_502"),
        pytest.param((500, {}, b"\xff\xfe\x00"), id="bytes_500"),
    ],
)
@pytest.mark.parametrize("first", [True, False], ids=["first", "later"])
def test_a_passing_fault_is_asked_again(connect, endpoint: Endpoint, reply: Reply, first: bool) -> None:
    endpoint.script += [reply] if first else [completion("re: q0"), reply]
    assert asked(connect(concurrency=1)) == [("re: q0", "stop"), *REST]
    assert len(endpoint.bodies) == 4


@pytest.mark.parametrize("packed", [False, True])
def test_an_answer_in_latin_1_or_packed_is_an_answer(connect, endpoint: Endpoint, packed: bool) -> None:
    body = json.dumps(completion("naïve?")[2], ensure_ascii=False)
    data = gzip.compress(body.encode()) if packed else body.encode("latin-1")
    endpoint.script.append((200, {"Content_Encoding": "gzip"} if packed else {}, data))
    assert asked(connect(concurrency=1), 1) == [("naïve?" if packed else "na\ufffdve?", "stop")]
    assert len(endpoint.bodies) == 1


@pytest.mark.parametrize("reply", [error(403, "not for you"), error(404, "no such model"), error(410, "gone"), (200, {}, {"error": {"code": 404}})], ids=["403", "404", "410", "404_in_200"])  # fmt: skip
class TestNotForThisRequest:
    def test_at_the_start_it_is_the_configuration(self, connect, endpoint: Endpoint, reply: Reply) -> None:
        endpoint.script.append(reply)
        with pytest.raises(UserError, match=r"wants a valid key|does not know the model 'm'"):
            asked(connect(concurrency=1))
        assert len(endpoint.bodies) == 1

    def test_after_an_answer_it_is_the_row(self, connect, endpoint: Endpoint, reply: Reply) -> None:
        endpoint.script += [completion("re: q0"), reply]
        assert asked(connect(concurrency=1)) == [("re: q0", "stop"), ("", "refusal"), REST[1]]

    def test_beside_an_answer_of_the_first_round_it_is_the_row(self, connect, endpoint: Endpoint, reply: Reply) -> None:
        endpoint.pause_s = 0.1
        endpoint.answer = lambda body: reply if body["messages"][-1]["content"] == "q0" else None
        assert asked(connect(concurrency=3)) == [("", "refusal"), *REST]

    def test_after_the_answers_of_an_earlier_run_it_is_the_row(self, connect, endpoint: Endpoint, reply: Reply) -> None:
        asked(connect(concurrency=1), 1)
        endpoint.script.append(reply)
        assert asked(connect(concurrency=1)) == [("re: q0", "stop"), ("", "refusal"), REST[1]]

    def test_many_in_a_row_are_not_the_rows(self, connect, endpoint: Endpoint, reply: Reply) -> None:
        """The model was taken away in the middle: a million rows must not be marked as refused."""
        calls = iter(range(1_000))
        endpoint.answer = lambda _: None if next(calls) < 4 else reply
        with pytest.raises(UserError, match=r"\(the last 8 requests\).*\(4 of 100 answers came and are kept\)"):
            asked(connect(concurrency=2), 100)
        assert len(endpoint.bodies) < 24


def test_an_endless_answer_is_read_no_further(connect, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MOST_BYTES", 10_000)
    endpoint.script += [completion("re: q0"), completion("x" * 20_000)]
    assert asked(connect(concurrency=1)) == [("re: q0", "stop"), ("", "length"), REST[1]]
    endpoint.script.append(completion("x" * 20_000))
    with pytest.raises(UserError, match="its answer has more than 0 MiB; is this an OpenAI-compatible endpoint"):
        connect(concurrency=1).complete([["other"]])


def test_a_packed_answer_is_measured_unpacked(connect, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(endpoint_module, "MOST_BYTES", 1_000_000)
    bomb = gzip.compress(json.dumps(completion("x" * 30_000_000)[2]).encode())
    assert len(bomb) < 100_000
    endpoint.script += [completion("re: q0"), (200, {"Content_Encoding": "gzip"}, bomb)]
    assert asked(connect(concurrency=1))[1] == ("", "length")


def test_the_beginning_of_an_endless_error_says_enough(
    connect, endpoint: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(endpoint_module, "MOST_BYTES", 1_000)
    endpoint.script += [(503, {}, b"busy " * 100_000)]
    assert asked(connect(concurrency=1)) == [("re: q0", "stop"), *REST]
