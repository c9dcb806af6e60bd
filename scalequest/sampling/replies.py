"""What an endpoint's reply says: an answer, or whose fault it is that there is none.

Servers that call themselves OpenAI-compatible differ most in what they say when something is wrong.
A fault is read from the status, from an error's code (a number or words), and last from its
message.
"""

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

from scalequest.sampling.answer_journal import Answer
from scalequest.sampling.completion import CUT, STOP, TOO_LONG

# The endpoint would not write it: a content filter, or the model's own refusal. There is no text
# then.
REFUSAL = "refusal"

# ------------------------------------------------------------------------------------------------------------ faults

# Whose fault it is: the server's for the moment (ask again), the key's, the account's, the
# address's, this request's or the configuration's (DENIED), unknown. The row's own are TOO_LONG
# and REFUSAL.
AGAIN, KEY, MONEY, ADDRESS, DENIED, UNKNOWN = "again", "key", "money", "address", "denied", "unknown"

# Busy, out of time or broken for the moment: asked again. So is every status from 500 on, but for
# "not implemented" and the like.
TRANSIENT = frozenset({408, 409, 425, 429})
NOT_TRANSIENT = frozenset({501, 505})
# No request passes: a redirect is never followed.
NO_SUCH_ENDPOINT = frozenset({*range(300, 400), 405})
# No such model or endpoint; a router may say so of one request.
NOT_FOUND = frozenset({404, 410})
# Of an account that has no money left, whatever the status.
_MONEY = re.compile(
    r"insufficient[_ ](?:quota|balance|credit|funds)|(?<!/)billing|exceeded your current quota|payment_required"
)
_FILTERED = re.compile(
    r"content[_ ](?:filter|policy|management policy)|moderation|flagged|safety|prohibited_content|responsible_?ai"
)
_LONG = re.compile(
    r"context_length_exceeded|context[_ ](?:length|window|size)|maximum context|too many tokens|string_above_max_length|"
    r"prompt is too long|request_too_large"
)
# Words that servers write where a number is due: in ``code``, ``type`` or ``status``.
_SERVER = re.compile(
    r"server_error|internal|rate_?limit|too_many_requests|overload|unavailable|time_?d?_?out|capacity|resource_exhausted|"
    r"throttl|busy|bad_gateway|upstream|try_again|temporar|provider_error|connection|slow_down|deadline|\bapi_error\b"
)
_KEY = re.compile(r"api_key|authentication|unauthori[sz]ed|unauthenticated|invalid_token|account_deactivated")
_DENIED = re.compile(r"permission|forbidden|access_denied|not_found|no_such_model|unsupported_country")
# Longer texts are sentences, not codes; and some words name nothing.
_LONGEST_CODE = 64
_NO_CODE = frozenset({"", "error", "none", "null", "unknown", "unknown_error"})


def classify(status: int | None, codes: str, message: str) -> str:
    """Whose fault it is that there is no answer.

    Args:
        status: of the reply, or the number that an error inside it gives; None if there is none.
        codes: the error's code, type and status in words, as ``error_codes`` joins them.
        message: what the server says about it.

    Returns:
        ``AGAIN``, ``KEY``, ``MONEY``, ``ADDRESS``, ``DENIED``, ``TOO_LONG``, ``REFUSAL`` or ``UNKNOWN``.
    """
    words, failed = f"{codes} {message}".lower(), status is not None and status >= 500
    filtered = bool(_FILTERED.search(words)) and not failed
    if status == 402 or _MONEY.search(codes):
        return MONEY
    if status == 401 or (_KEY.search(codes) and not failed):
        return KEY
    if _LONG.search(codes):
        return TOO_LONG
    if _FILTERED.search(codes):
        return REFUSAL
    if _SERVER.search(codes):  # before the message: that of a rate limit may advise to look at the billing page
        return AGAIN
    if _MONEY.search(words) and not failed and not filtered:
        return MONEY
    if status is not None and (status in TRANSIENT or (failed and status not in NOT_TRANSIENT)):
        return AGAIN
    if status in NO_SUCH_ENDPOINT:
        return ADDRESS
    if status in NOT_FOUND:
        return DENIED
    if status == 413 or _LONG.search(words):
        return TOO_LONG
    if filtered:
        return REFUSAL
    if status == 403 or _DENIED.search(codes):
        return DENIED
    return AGAIN if status is None and not codes else UNKNOWN


def error_in(body: Any) -> Any:
    """The error that a reply holds: an object, a text, or None.

    Routers report one inside a reply of status 200 when the server behind them failed after they
    had begun to answer. A choice that was ended by the server is one, too.
    """
    if not isinstance(body, dict):
        return None
    if choice := first_choice(body):
        if error := choice.get("error"):
            return error
        ended = str(choice.get("finish_reason")).lower() in ENDED_BY_SERVER
        return {"message": f"finish_reason {choice['finish_reason']}"} if ended else None
    errors = body.get("errors")
    listed = errors[0] if isinstance(errors, list) and errors else None
    return body.get("error") or listed or (body if body.get("object") == "error" else None)


def error_codes(error: Any) -> tuple[int | None, str]:
    """The number and the words by which an error is called, in lower case and joined by ``_``."""
    given: list[Any] = []
    if isinstance(error, str):
        given = [error] if " " not in error.strip() else []  # words with blanks are a message
    elif isinstance(error, dict):
        given = [error.get(name) for name in ("code", "status", "status_code", "type", "reason")]
    number, words = None, list[str]()
    for value in given:
        text = str(value).strip() if isinstance(value, str | int) and not isinstance(value, bool) else ""
        if found := re.match(r"(?:HTTP )?([345]\d\d)\b", text):
            number = number or int(found[1])
        elif not re.fullmatch(r"-?\d+", text) and len(text) <= _LONGEST_CODE:
            words.append(re.sub(r"[\s-]+", "_", re.sub(r"(?<=[a-z])(?=[A-Z])", "_", text)).lower())
    return number, " ".join(word for word in words if word not in _NO_CODE)


def error_message(error: Any, text: str = "") -> str:
    """What the server says is wrong: printable, on one line, at most 200 characters.

    Args:
        error: what ``error_in`` found.
        text: the whole reply, where it holds no error of a known form.
    """
    if isinstance(error, dict):
        said = f"{error.get('message') or error.get('detail') or ''} {error.get('code') or error.get('type') or ''}"
    else:
        said = str(error or "") or text
    line = " ".join("".join(c if c.isprintable() else " " for c in said[:2_000]).split())
    return line[:200] or "no message"


def retry_after(value: str | None) -> float | None:
    """Seconds that the server asks to wait for: a number, or a date; None if it does not say so."""
    if not value:
        return None
    try:
        seconds = float(value)
    except ValueError:
        pass
    else:
        return max(0.0, seconds) if seconds == seconds else None
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


# ----------------------------------------------------------------------------------------------------------- answers

# Why a completion ended, in the words of servers that do not keep to the API's.
ENDED_BY_LENGTH = frozenset(
    {"length", "max_tokens", "max_output_tokens", "model_length", "incomplete", "context_length"}
)
ENDED_BY_FILTER = frozenset(
    {"content_filter", "content_filtered", "refusal", "safety", "recitation", "blocklist", "prohibited_content", "spii",
     "sensitive", "language"}
)  # fmt: skip
ENDED_BY_SERVER = frozenset(
    {"abort", "aborted", "error", "cancelled", "canceled", "insufficient_system_resource", "timeout"}
)
# Parts of a message that are not what the model says.
_UNSAID = frozenset({"reasoning", "thinking", "redacted_thinking", "tool_use", "tool_call", "image_url"})
# Token counts under the API's names and under those of others.
_COUNTS = (("prompt_tokens", "input_tokens"), ("completion_tokens", "output_tokens"))
# More tokens than any answer has; such a number is none.
_MOST_TOKENS = 2**40


def json_body(content: bytes) -> Any:
    """The reply as JSON; None if it is none. A list of one object, as some send it, is that object."""
    try:
        body = json.loads(content.decode("utf-8-sig", "replace"))
    except (ValueError, RecursionError):
        return None
    return body[0] if isinstance(body, list) and len(body) == 1 and isinstance(body[0], dict) else body


def cut_off(content: bytes) -> bool:
    """Whether a reply that is no JSON is the beginning of one, or nothing at all."""
    begin = content.lstrip()[:1]
    return begin in (b"", b"{", b"[")


def first_choice(body: dict[str, Any]) -> dict[str, Any]:
    """The first choice of a chat completion; empty if there is none."""
    choices = body.get("choices")
    return choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}


def read_answer(body: dict[str, Any]) -> Answer:
    """The first choice of a chat completion.

    What was paid for is kept where it can be: a reply without token counts, with another name for
    the end, or with the text in parts is an answer.

    Raises:
        KeyError, TypeError, AttributeError: the body is no chat completion.
    """
    choices, usage = body["choices"], body.get("usage")
    read, written = (_count(usage, names) for names in _COUNTS)
    model = whole_text(str(body.get("model") or ""))
    if not choices:  # a filter took the only one
        return Answer("", REFUSAL, read, written, model)
    choice = first_choice(body)
    message = choice.get("message")
    if not choice or (message is None and "message" not in choice and "text" not in choice):
        raise KeyError("message")
    message = {} if message is None else message
    end = str(choice.get("finish_reason") or STOP).lower()
    text, refusal = message_text(message.get("content", choice.get("text"))), message.get("refusal")
    if refusal or refused_in_parts(message.get("content")) or end in ENDED_BY_FILTER:
        return Answer("", REFUSAL, read, written, model)
    if end in ENDED_BY_LENGTH:  # also without text: a reasoning model may have thought until the limit
        return Answer(text or "", CUT, read, written, model)
    return Answer(text or "", REFUSAL if text is None else STOP, read, written, model)


def _count(usage: Any, names: tuple[str, ...]) -> int | None:
    for name in names:
        value = usage.get(name) if isinstance(usage, dict) else None
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if 0 <= value < _MOST_TOKENS and value == int(value):
            return int(value)
    return None


def message_text(content: Any) -> str | None:
    """The text of a message: a string, or the text parts of a list; None if there is none."""
    if isinstance(content, dict):
        content = [content]
    if isinstance(content, list):
        parts = [text for part in content if (text := _part_text(part)) is not None]
        return whole_text("".join(parts)) if parts else None
    return None if content is None else whole_text(str(content))


def _part_text(part: Any) -> str | None:
    if not isinstance(part, dict):
        return None if part is None else str(part)
    if str(part.get("type")).lower() in _UNSAID:
        return None
    text = part.get("text")
    text = text.get("value") if isinstance(text, dict) else text
    return None if text is None else str(text)


def refused_in_parts(content: Any) -> bool:
    """Whether a message in parts is the model's refusal."""
    return isinstance(content, list) and any(isinstance(p, dict) and p.get("type") == "refusal" for p in content)


def whole_text(text: str) -> str:
    """``text`` that every file can hold: halves of surrogate pairs become the replacement character."""
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
