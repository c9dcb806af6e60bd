"""An optimizer behind any OpenAI-compatible endpoint: asked politely, paid once.

At most ``concurrency`` requests are under way, from one process. A busy or failing server is asked
again after a growing pause, or after the one that it asks for. Every answer is appended to a
journal under a hash of its request as soon as it is there, so a rerun, also one after a kill, pays
only for what is missing. The key comes from the environment and is written nowhere.

Whose fault a failure is decides what follows. A request that the endpoint will not answer (content
filter, too long) is its row's outcome, and the others are still asked. What no request could pass
(key, model, URL, account, a server that is down) ends the run, and what was answered is kept.
"""

import fcntl
import json
import logging
import os
import random
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scalequest.errors import UserError
from scalequest.params import Api, Sampling
from scalequest.sampling.completion import CUT, STOP, TOO_LONG, Completion

if TYPE_CHECKING:
    from scalequest.runtime.progress import Progress

log = logging.getLogger("scalequest")

LONGEST_PAUSE_S = 60.0
# Busy, out of time or broken for the moment: asked again. So is every status from 500 on, but for
# "not implemented" and the like.
TRANSIENT = frozenset({408, 409, 425, 429})
NOT_TRANSIENT = frozenset({501, 505})
# Codes and words of an account that has no money left, whatever the status.
NO_MONEY = (
    "insufficient_quota",
    "insufficient_balance",
    "insufficient balance",
    "billing",
    "exceeded your current quota",
)
# The endpoint would not write it: a content filter, or the model's own refusal. There is no text
# then.
REFUSAL = "refusal"
FILTERED = (
    "content_filter",
    "content filter",
    "content management policy",
    "content_policy",
    "moderation",
    "flagged",
    "safety",
)
LONG = (
    "context_length_exceeded",
    "context length",
    "context window",
    "maximum context",
    "too many tokens",
    "string_above_max_length",
)
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
# This many requests that are refused without a known reason, with no answer before them, are not
# their rows' fault.
REFUSED_BEFORE_ANY_ANSWER = 8


@dataclass(frozen=True)
class Answer:
    """One answer of the endpoint, as the journal keeps it.

    Attributes:
        text: what was written; empty for a refusal.
        finish_reason: ``stop``, ``length``, ``too_long`` or ``refusal``.
        input_tokens: tokens of the request that are paid for; None where the endpoint does not say.
        output_tokens: tokens of the answer that are paid for; None where the endpoint does not say.
        model: the name by which the endpoint says who answered; it may be more exact than the one
            asked for.
    """

    text: str
    finish_reason: str
    input_tokens: int | None
    output_tokens: int | None
    model: str


class UnansweredError(Exception):
    """One request got no answer.

    Attributes:
        again: another try may get one.
        reason: the row's finish reason where the request itself is known to be at fault, else None.
        pause_s: seconds that the server asks to wait for, if it does.
    """

    def __init__(self, problem: str, again: bool, reason: str | None = None, pause_s: float | None = None) -> None:
        super().__init__(problem)
        self.again, self.reason, self.pause_s = again, reason, pause_s


class Journal:
    """Answers by the hash of their request, in memory and, where there is a file, one JSON line each.

    A line is written whole or, by a kill, in part; the part is cut off when the file is opened
    again.
    """

    def __init__(self, file: Path | None) -> None:
        self._answers: dict[str, Answer] = {}
        self._lock = threading.Lock()
        self._stream = None
        if file is None:
            return
        file.parent.mkdir(parents=True, exist_ok=True)
        self._stream = file.open("ab+")
        with self._alone():
            self._stream.seek(0)
            whole, newline, _ = self._stream.read().rpartition(b"\n")
            self._stream.truncate(len(whole) + len(newline))
        for number, line in enumerate(whole.splitlines(), start=1):
            try:
                row = json.loads(line)
                key = row.pop("key")
                self._answers[key] = Answer(**row)
            except (ValueError, KeyError, TypeError, AttributeError):  # a full disk, an editor
                log.warning("%s:%d: unreadable, that answer is asked for again", file, number)

    def __contains__(self, key: str) -> bool:
        return key in self._answers

    def __getitem__(self, key: str) -> Answer:
        return self._answers[key]

    def add(self, key: str, answer: Answer) -> None:
        """Keep an answer; it is on disk when this returns."""
        with self._lock:
            self._answers[key] = answer
            if self._stream:
                with self._alone():
                    self._stream.write(json.dumps({"key": key} | asdict(answer), ensure_ascii=False).encode() + b"\n")
                    self._stream.flush()
                    os.fsync(self._stream.fileno())

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the file's lock: on Ray several workers append to one journal."""
        assert self._stream is not None
        fcntl.flock(self._stream, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._stream, fcntl.LOCK_UN)


class ApiOptimizer:
    """A chat model behind an endpoint.

    Attributes:
        paid: the answers of this process, in order of arrival; those out of the journal are not
            among them.
    """

    def __init__(
        self, url: str, model: str, sampling: Sampling, settings: Api, journal: Path | None, seed: int
    ) -> None:
        import httpx

        key = os.environ.get(settings.key_variable)
        self._url, self._model, self._sampling, self._settings, self._seed = url, model, sampling, settings, seed
        self._journal = Journal(journal)
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {key}"} if key else {},
            timeout=settings.timeout_s,
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
        self._stopping = threading.Event()
        self.paid: list[Answer] = []
        self._answered = 0

    def complete(
        self, conversations: Sequence[list[str]], progress: "Callable[[int, int], Progress] | None" = None
    ) -> list[Completion]:
        """Answers to N conversations (turns of user and assistant, the user's first and last), in order.

        Args:
            conversations: N conversations; equal ones are asked once.
            progress: starts the progress lines, given how many answers there will be and how many
                there are.

        Raises:
            UserError: the endpoint refuses the key, does not know the model, has no money, refuses
                every request, or cannot be reached. What was answered until then is kept.
        """
        requests = [self._request(turns) for turns in conversations]
        keys = [self._key(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._journal}
        n = len(set(keys))
        # Answers of an earlier run show that key, model and requests are right: what it refused is that row's fault.
        self._answered = max(self._answered, n - len(missing))
        faults = self._ask(missing, progress(n, n - len(missing)) if progress else None) if missing else {}
        log.info(
            "%s: %d answers, %d of them from the journal; $%.4f paid so far", self._model, n, n - len(missing), self.usd(self.paid)
        )  # fmt: skip
        answers = [faults.get(key) or self._journal[key] for key in keys]
        return [Completion(a.text, a.finish_reason, a.output_tokens or 0) for a in answers]

    def usd(self, answers: Sequence[Answer]) -> float:
        """What answers cost, at the prices of params.yaml."""
        prices = self._settings
        return (
            sum(a.input_tokens or 0 for a in answers) * prices.usd_per_million_input
            + sum(a.output_tokens or 0 for a in answers) * prices.usd_per_million_output
        ) / 1e6

    def cost(self) -> dict[str, float]:
        """What this process paid for: requests, tokens, dollars."""
        return {
            "api_requests_paid": len(self.paid),
            "api_requests_without_usage": sum(a.input_tokens is None or a.output_tokens is None for a in self.paid),
            "api_input_tokens": sum(a.input_tokens or 0 for a in self.paid),
            "api_output_tokens": sum(a.output_tokens or 0 for a in self.paid),
            "api_usd": round(self.usd(self.paid), 6),
        }

    def _request(self, turns: list[str]) -> dict[str, Any]:
        """The body of one request; equal bodies have equal answers here."""
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)],
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "max_tokens": self._sampling.max_tokens,
        }
        if self._sampling.temperature > 0:
            # Of the run and the words, not of the shard: another shard size must not pay again.
            # Servers do their best with it.
            text = json.dumps([self._seed, turns], ensure_ascii=False)
            request["seed"] = int.from_bytes(sha256(text.encode()).digest()[:4], "big") >> 1
        return request

    def _key(self, request: dict[str, Any]) -> str:
        return sha256(json.dumps([self._url, request], sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def _ask(self, missing: dict[str, dict[str, Any]], progress: "Progress | None") -> dict[str, Answer]:
        """Ask for what is missing; what was answered is in the journal afterwards.

        Returns:
            The requests that got no answer by their own fault, with an empty one. They are not
            kept: asking again costs nothing.
        """
        pool = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="api")
        futures = {pool.submit(self._answer, key, request): key for key, request in missing.items()}
        faults: dict[str, Answer] = {}
        unknown, problem = 0, ""
        try:
            for future in as_completed(futures):
                try:
                    answer = future.result()
                except UnansweredError as fault:
                    unknown, problem = unknown + (fault.reason is None), str(fault)
                    answer = faults[futures[future]] = Answer("", fault.reason or REFUSAL, 0, 0, self._model)
                    if not self._answered and unknown >= min(REFUSED_BEFORE_ANY_ANSWER, len(missing)):
                        raise UserError(
                            f"{self._url} refuses the request ({problem}); look at `preferences` and at the account"
                        ) from None
                if progress and answer:
                    progress.add(1, answer.output_tokens or 0)
        except UserError as error:
            self._stopping.set()
            pool.shutdown(cancel_futures=True)  # those under way are paid for: wait for them and keep them
            raise UserError(
                f"{error} ({sum(key in self._journal for key in missing)} of {len(missing)} answers came and are kept)"
            ) from None
        finally:
            self._stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            self._stopping = threading.Event()
        if faults:
            log.warning(
                "%s: %d of %d requests got no answer, the last because %s",
                self._model,
                len(faults),
                len(missing),
                problem,
            )
        if without := self.cost()["api_requests_without_usage"]:
            log.warning("%s: %d answers came without token counts; the cost is a lower bound", self._model, without)
        return faults

    def _answer(self, key: str, request: dict[str, Any]) -> Answer | None:
        """Ask once, or as often as it takes, and keep the answer; None where the run is being ended.

        Raises:
            UnansweredError: this request gets none, others do or may.
            UserError: no request will get one.
        """
        stopping, settings, problem = self._stopping, self._settings, ""
        before = self._answered
        for attempt in range(settings.retries + 1):
            if stopping.is_set():
                return None
            if attempt == settings.retries // 2:
                before = self._answered
            pause = min(2.0**attempt, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
            try:
                answer = self._try(request)
            except UnansweredError as fault:
                if not fault.again:
                    raise
                problem, pause = str(fault), min(fault.pause_s or pause, LONGEST_PAUSE_S)
            else:
                self._journal.add(key, answer)
                self.paid.append(answer)
                self._answered += 1
                return answer
            if attempt < settings.retries:
                stopping.wait(pause)
        if self._answered > before:  # others were answered in the later half of the tries
            raise UnansweredError(f"it had none in {settings.retries + 1} tries ({problem})", again=False)
        stopping.set()
        raise UserError(
            f"{self._url} gave no answer in {settings.retries + 1} tries ({problem}); check that it runs, or raise "
            "runtime.api.retries or timeout_s; run again to resume"
        )

    def _try(self, request: dict[str, Any]) -> Answer:
        """Ask once.

        Raises:
            UnansweredError: no answer this time, or none for this request.
            UserError: no request will get one.
        """
        import httpx

        try:
            response = self._client.post(f"{self._url}/chat/completions", json=request)
        except httpx.TimeoutException:
            raise UnansweredError(f"no answer within {self._settings.timeout_s:g} s", again=True) from None
        except httpx.TransportError as error:
            raise UnansweredError(f"{type(error).__name__}: {error}", again=True) from None
        status = response.status_code
        if response.is_success:
            body = json_body(response)
            found = fault_in(body)
            if found is None:
                try:
                    return read_answer(body)
                except (ValueError, KeyError, IndexError, TypeError, AttributeError):
                    self._refuse_foreign(response)
                    raise UnansweredError(f"no chat completion: {response.text[:200]!r}", again=True) from None
            status = found
        problem = f"{status}: {error_message(response)}"
        self._refuse_for_all(status, problem)
        if status in TRANSIENT or (status >= 500 and status not in NOT_TRANSIENT):
            raise UnansweredError(problem, again=True, pause_s=retry_after(response.headers.get("Retry-After")))
        words = problem.lower()
        if status == 413 or any(word in words for word in LONG):
            raise UnansweredError(problem, again=False, reason=TOO_LONG)
        raise UnansweredError(problem, again=False, reason=REFUSAL if any(word in words for word in FILTERED) else None)

    def _refuse_foreign(self, response: Any) -> None:
        """Raise where nothing that came so far was a chat completion; one among many is a proxy's hiccup."""
        if not self._answered:
            self._stopping.set()
            raise UserError(
                f"{self._url} answered with something that is no chat completion: {response.text[:200]!r}; is this an "
                "OpenAI-compatible endpoint?"
            )

    def _refuse_for_all(self, status: int, problem: str) -> None:
        """Raise for what no request could pass."""
        words, variable = problem.lower(), self._settings.key_variable
        if status == 402 or any(word in words for word in NO_MONEY):
            text = f"{self._url} refuses the request ({problem}); look at the account's limits and balance"
        elif status == 401 or (status == 403 and not any(word in words for word in FILTERED)):
            state = "holds another" if os.environ.get(variable) else "is not set"
            text = f"{self._url} wants a valid key ({problem}); the environment variable {variable} {state}"
        elif status in (404, 405, 410) or 300 <= status < 400:
            text = (
                f"{self._url} does not know the model '{self._model}', or is no such endpoint ({problem}); models.optimizer is "
                "api:URL#MODEL, and the URL mostly ends in /v1"
            )
        else:
            return
        self._stopping.set()  # before the next request goes out
        raise UserError(text)


def json_body(response: Any) -> Any:
    """The reply as JSON; None if it is none."""
    try:
        return response.json()
    except ValueError:
        return None


def fault_in(body: Any) -> int | None:
    """The status of an error that a server reports inside a reply of status 200; None if there is none.

    Routers do so when the server behind them failed after they had begun to answer.
    """
    if not isinstance(body, dict):
        return None
    choices = body.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices and isinstance(choices[0], dict) else {}
    error = choice.get("error") or (None if choice else body.get("error"))
    if not error:
        return 502 if str(choice.get("finish_reason")).lower() in ENDED_BY_SERVER else None
    code = error.get("code") if isinstance(error, dict) else None
    if isinstance(code, int) or (isinstance(code, str) and code.isdigit()):
        return int(code) if 400 <= int(code) < 600 else 502
    # A code in words is a fault of the request as a rule ("content_filter"); without one the server
    # failed.
    return 400 if code else 502


def read_answer(body: dict[str, Any]) -> Answer:
    """The first choice of a chat completion; raises KeyError, IndexError, TypeError or AttributeError for a body that is none.

    What was paid for is kept where it can be: a reply without token counts, with another name for
    the end, or with the text in parts is an answer.
    """
    choices, usage = body["choices"], body.get("usage")
    counts = [usage.get(name) if isinstance(usage, dict) else None for name in ("prompt_tokens", "completion_tokens")]
    read, written = (count if isinstance(count, int) else None for count in counts)
    model = str(body.get("model") or "")
    if isinstance(choices, list) and not choices:  # a filter took the only one
        return Answer("", REFUSAL, read, written, model)
    choice = choices[0]
    message, end = choice["message"], str(choice.get("finish_reason") or STOP).lower()
    text = message_text(message.get("content"))
    if message.get("refusal") or end in ENDED_BY_FILTER:
        return Answer("", REFUSAL, read, written, model)
    if end in ENDED_BY_LENGTH:  # also without text: a reasoning model may have thought until the limit
        return Answer(text or "", CUT, read, written, model)
    return Answer(text or "", REFUSAL if text is None else STOP, read, written, model)


def message_text(content: Any) -> str | None:
    """The text of a message: a string, or the text parts of a list; None if there is none."""
    if isinstance(content, list):
        parts = [str(part.get("text") or "") if isinstance(part, dict) else str(part) for part in content]
        return "".join(parts) if parts else None
    return None if content is None else str(content)


def error_message(response: Any) -> str:
    """What the server says is wrong, at most 200 characters."""
    body = json_body(response)
    choices = body.get("choices") if isinstance(body, dict) else None
    within = choices[0].get("error") if isinstance(choices, list) and choices and isinstance(choices[0], dict) else None
    error = within or (body.get("error", body) if isinstance(body, dict) else response.text)
    text = f"{error.get('message', '')} {error.get('code') or ''}" if isinstance(error, dict) else str(error)
    return text.strip()[:200] or "no message"


def retry_after(value: str | None) -> float | None:
    """Seconds that the server asks to wait for: a number, or a date; None if it does not say so."""
    if not value:
        return None
    try:
        return max(0.0, float(value))
    except ValueError:
        pass
    try:
        return max(0.0, (parsedate_to_datetime(value) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError):
        return None
