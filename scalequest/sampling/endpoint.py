"""An optimizer behind any OpenAI-compatible endpoint: asked politely, paid once.

At most ``concurrency`` requests are under way (by each worker, on Ray); a busy or failing server is tried again after a growing pause, or after the one
that it asks for. Every answer is appended to a journal under a hash of its request as soon as it is there, so that a rerun,
also one after a kill, pays for what is missing only. The key comes from the environment and is written nowhere.
"""

import fcntl
import json
import logging
import os
import random
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.params import Api, Sampling
from scalequest.sampling.completion import Completion

log = logging.getLogger("scalequest")

LONGEST_PAUSE_S = 60.0
# Busy, out of time, or broken for the moment. Everything else that is no success will be the same the next time.
TRANSIENT = frozenset({408, 409, 425, 429, 500, 502, 503, 504})
# The endpoint would not write it: a content filter, or the model's own refusal. There is no text then.
REFUSAL = "refusal"


@dataclass(frozen=True)
class Answer:
    """One answer of the endpoint, as the journal keeps it.

    Attributes:
        text: what was written; empty for a refusal.
        finish_reason: ``stop``, ``length`` or ``refusal``.
        input_tokens: tokens of the request that are paid for.
        output_tokens: tokens of the answer that are paid for.
        model: the name by which the endpoint says who answered; it may be more exact than the one asked for.
    """

    text: str
    finish_reason: str
    input_tokens: int
    output_tokens: int
    model: str


class Journal:
    """Answers by the hash of their request, in memory and, where there is a file, one JSON line each.

    A line is written whole or, by a kill, in part; the part is cut off when the file is opened again.
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
        for line in whole.splitlines():
            row = json.loads(line)
            key = row.pop("key")
            self._answers[key] = Answer(**row)

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
        paid: the answers of this process, in order of arrival; those out of the journal are not among them.
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

    def complete(self, conversations: Sequence[list[str]], _seed: int = 0) -> list[Completion]:
        """Answers to N conversations (turns of user and assistant, the user's first and last), in order.

        Raises:
            UserError: the endpoint refuses the key, does not know the model, refuses a request, or cannot be reached. What was
                answered until then is kept.
        """
        requests = [self._request(turns) for turns in conversations]
        keys = [self._key(request) for request in requests]
        missing = {key: request for key, request in zip(keys, requests, strict=True) if key not in self._journal}
        if missing:
            self._ask(missing, len(set(keys)))
        answers = [self._journal[key] for key in keys]
        return [Completion(a.text, a.finish_reason, a.output_tokens) for a in answers]

    def usd(self, answers: Sequence[Answer]) -> float:
        """What answers cost, at the prices of params.yaml."""
        prices = self._settings
        return (
            sum(a.input_tokens for a in answers) * prices.usd_per_million_input
            + sum(a.output_tokens for a in answers) * prices.usd_per_million_output
        ) / 1e6

    def cost(self) -> dict[str, float]:
        """What this process paid for: requests, tokens, dollars."""
        return {
            "api_requests_paid": len(self.paid),
            "api_input_tokens": sum(a.input_tokens for a in self.paid),
            "api_output_tokens": sum(a.output_tokens for a in self.paid),
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
            # Of the run and the words, not of the shard: another shard size must not pay again. Servers do their best with it.
            text = json.dumps([self._seed, turns], ensure_ascii=False)
            request["seed"] = int.from_bytes(sha256(text.encode()).digest()[:4], "big") >> 1
        return request

    def _key(self, request: dict[str, Any]) -> str:
        return sha256(json.dumps([self._url, request], sort_keys=True, ensure_ascii=False).encode()).hexdigest()

    def _ask(self, missing: dict[str, dict[str, Any]], n: int) -> None:
        pool = ThreadPoolExecutor(self._settings.concurrency, thread_name_prefix="api")
        futures = {pool.submit(self._answer, request): key for key, request in missing.items()}
        try:
            for future in as_completed(futures):
                future.result()
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
        log.info(
            "%s: %d answers, %d of them from the journal; $%.4f paid so far", self._model, n, n - len(missing), self.usd(self.paid)
        )  # fmt: skip

    def _answer(self, request: dict[str, Any]) -> None:
        """Ask once, or as often as it takes, and keep the answer."""
        import httpx

        stopping, settings = self._stopping, self._settings
        problem = ""
        for attempt in range(settings.retries + 1):
            if stopping.is_set():
                return
            pause = min(2.0**attempt, LONGEST_PAUSE_S) * random.uniform(0.5, 1.0)
            try:
                response = self._client.post(f"{self._url}/chat/completions", json=request)
            except httpx.TimeoutException:
                problem = f"no answer within {settings.timeout_s:g} s"
            except httpx.TransportError as error:
                problem = f"{type(error).__name__}: {error}"
            else:
                if response.is_success:
                    answer = self._read(response)
                    self._journal.add(self._key(request), answer)
                    self.paid.append(answer)
                    return
                problem = f"{response.status_code}: {error_message(response)}"
                self._refuse_if_final(response, problem)
                pause = min(retry_after(response.headers.get("Retry-After")) or pause, LONGEST_PAUSE_S)
            if attempt < settings.retries:
                stopping.wait(pause)
        stopping.set()
        raise UserError(
            f"{self._url} gave no answer in {settings.retries + 1} tries ({problem}); check that it runs, or raise "
            "runtime.api.retries or timeout_s; run again to go on"
        )

    def _refuse_if_final(self, response: Any, problem: str) -> None:
        """Raise for what another try will not change."""
        if response.status_code in TRANSIENT and "insufficient_quota" not in problem:
            return
        self._stopping.set()  # before the next request goes out
        variable = self._settings.key_variable
        if response.status_code in (401, 403):
            state = "holds another" if os.environ.get(variable) else "is not set"
            raise UserError(f"{self._url} wants a valid key ({problem}); the environment variable {variable} {state}")
        if response.status_code == 404:
            raise UserError(
                f"{self._url} does not know the model '{self._model}', or is no such endpoint ({problem}); models.optimizer is "
                "api:URL#MODEL, and the URL mostly ends in /v1"
            )
        raise UserError(f"{self._url} refuses the request ({problem}); look at `preferences` and at the account")

    def _read(self, response: Any) -> Answer:
        try:
            return read_answer(response.json())
        except (ValueError, KeyError, IndexError, TypeError):
            self._stopping.set()
            raise UserError(
                f"{self._url} answered with something that is no chat completion: {response.text[:200]!r}; is this an "
                "OpenAI-compatible endpoint?"
            ) from None


def read_answer(body: dict[str, Any]) -> Answer:
    """The first choice of a chat completion; raises KeyError, IndexError or TypeError for a body that is none."""
    choice = body["choices"][0]
    message, usage = choice["message"], body["usage"]
    text, reason = message.get("content"), choice["finish_reason"]
    if message.get("refusal") or reason == "content_filter" or text is None:
        text, reason = "", REFUSAL
    return Answer(text, reason, usage["prompt_tokens"], usage["completion_tokens"], body.get("model", ""))


def error_message(response: Any) -> str:
    """What the server says is wrong, at most 200 characters."""
    try:
        body = response.json()
        error = body.get("error", body)
        text = f"{error.get('message', '')} {error.get('code') or ''}" if isinstance(error, dict) else str(error)
    except (ValueError, AttributeError):
        text = response.text
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
