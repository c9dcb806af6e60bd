"""A model behind any OpenAI-compatible endpoint: asked politely, paid once.

At most ``concurrency`` requests are under way, from one process. A busy or failing server is asked
again after a growing pause, or after the one that it asks for. Every answer is appended to a
journal under a hash of its request as soon as it is there, so a rerun, also one after a kill, pays
only for what is missing. The key comes from the environment and is written nowhere, not even where
the endpoint repeats it.

Whose fault a failure is decides what follows. A request that the endpoint will not answer (content
filter, too long) is its row's outcome, and the others are still asked. What no request could pass
(key, account, a server that is down) ends the run, and what was answered is kept. "Forbidden" and
"not found" are the configuration's fault before the first answer, and the row's afterwards.
"""

import json
import logging
import random
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from scalequest.errors import UserError
from scalequest.params import Api, Sampling
from scalequest.redaction import address_problem, api_key, keep_secret, redacted, without_values
from scalequest.sampling.answer_journal import Answer, Journal
from scalequest.sampling.completion import CUT, Completion
from scalequest.sampling.replies import (
    ADDRESS,
    AGAIN,
    DENIED,
    KEY,
    MONEY,
    REFUSAL,
    UNKNOWN,
    classify,
    cut_off,
    error_codes,
    error_in,
    error_message,
    json_body,
    read_answer,
    retry_after,
)

if TYPE_CHECKING:
    from scalequest.runtime.progress import Progress

log = logging.getLogger("scalequest")

LONGEST_PAUSE_S = 60.0
# This many requests that are refused without a known reason, with no answer before them, are not
# their rows' fault.
REFUSED_BEFORE_ANY_ANSWER = 8
# This many in a row to which model or address are unknown, after answers, are no longer their rows'
# fault.
DENIED_IN_A_ROW = 8
# A longer reply is read no further.
MOST_BYTES = 16 * 2**20
# A run that is stopped waits so long for answers that are under way, because they are paid for.
LAST_ANSWERS_S = 10.0


class UnansweredError(Exception):
    """One request got no answer.

    Attributes:
        again: another try may get one.
        reason: the row's finish reason where the request itself is known to be at fault, else None.
        pause_s: seconds that the server asks to wait for, if it does.
        settings: what may be wrong with the configuration, where the row need not be at fault.
    """

    def __init__(
        self, problem: str, again: bool, reason: str | None = None, pause_s: float | None = None, settings: str = ""
    ) -> None:
        super().__init__(problem)
        self.again, self.reason, self.pause_s, self.settings = again, reason, pause_s, settings


class ApiModel:
    """A chat model behind an endpoint.

    Attributes:
        paid: the answers of this process, in order of arrival; those out of the journal are not
            among them.
    """

    def __init__(
        self, url: str, model: str, sampling: Sampling, settings: Api, journal: Path | None, seed: int
    ) -> None:
        import httpx

        if problem := address_problem(url, settings.plain_http):
            raise UserError(f"the endpoint {redacted(url)}: {problem}")
        keep_secret(settings.key_variable)
        self._api_key = api_key(settings.key_variable)
        self._url, self._model, self._sampling, self._settings, self._seed = url, model, sampling, settings, seed
        self._journal = Journal(journal)
        self._client = httpx.Client(
            headers={"Authorization": f"Bearer {self._api_key}"} if self._api_key else {},
            timeout=settings.timeout_s,
            limits=httpx.Limits(max_connections=settings.concurrency),
        )
        if self._api_key:  # params.yaml may be another one's, and name any variable and host
            log.info("%s: the value of %s is sent to %s", model, settings.key_variable, urlsplit(url).netloc)
        self._stopping = threading.Event()
        self.paid: list[Answer] = []
        self._answered = 0

    def complete(
        self,
        conversations: Sequence[list[str]],
        progress: "Callable[[int, int], Progress] | None" = None,
        n_samples: int = 1,
        seeds: Sequence[int] | None = None,
        stops: Sequence[str] = (),
    ) -> list[Completion]:
        """Answers to N conversations (turns of user and assistant, the user's first and last), in order.

        Args:
            conversations: N conversations; equal ones are asked once.
            n_samples: answers to each, which follow one another; sample ``k`` is the same however
                many there are.
            seeds: a seed per conversation, instead of one that follows from the run and the words.
            stops: texts that end an answer.
            progress: starts the progress lines, given how many answers there will be and how many
                there are.

        Raises:
            UserError: the endpoint refuses the key, does not know the model, has no money, refuses
                every request, or cannot be reached. What was answered until then is kept.
        """
        chosen: Sequence[int | None] = seeds or [None] * len(conversations)
        requests = [
            self._request(turns, k, seed, stops)
            for turns, seed in zip(conversations, chosen, strict=True)
            for k in range(n_samples)
        ]
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

    def _request(
        self, turns: list[str], sample: int = 0, seed: int | None = None, stops: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The body of one request; equal bodies have equal answers here."""
        request: dict[str, Any] = {
            "model": self._model,
            "messages": [{"role": ("user", "assistant")[i % 2], "content": turn} for i, turn in enumerate(turns)],
            "temperature": self._sampling.temperature,
            "top_p": self._sampling.top_p,
            "max_tokens": self._sampling.max_tokens,
        }
        if stops:
            request["stop"] = list(stops)
        if self._sampling.temperature > 0:
            # Of the run and the words, not of the shard: another shard size must not pay again.
            # Servers do their best with it.
            decides = [self._seed, turns] if seed is None else [seed]
            text = json.dumps([*decides, *([sample] if sample else [])], ensure_ascii=False)
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
        faults: dict[str, UnansweredError] = {}
        try:
            self._ask_all(missing, faults, progress)
        except UserError as error:
            raise UserError(
                f"{error} ({sum(key in self._journal for key in missing)} of {len(missing)} answers came and are kept)"
            ) from None
        if faults:
            last = str(list(faults.values())[-1])
            log.warning(
                "%s: %d of %d requests got no answer, the last because %s", self._model, len(faults), len(missing), last
            )
        if without := self.cost()["api_requests_without_usage"]:
            log.warning("%s: %d answers came without token counts; the cost is a lower bound", self._model, without)
        return {key: Answer("", fault.reason or REFUSAL, 0, 0, self._model) for key, fault in faults.items()}

    def _ask_all(
        self, missing: dict[str, dict[str, Any]], faults: dict[str, UnansweredError], progress: "Progress | None"
    ) -> None:
        """Ask for all, and put those that got no answer into ``faults``.

        Before the first answer nobody knows whether address, key and model are right. One round of
        requests finds out, before more are asked.

        Raises:
            UserError: no request will get an answer. Those under way are waited for and kept.
        """
        at_once, waiting, denied = self._settings.concurrency, deque(missing), 0
        pool = ThreadPoolExecutor(at_once, thread_name_prefix="api")
        under_way: dict[Future[Answer | None], str] = {}
        try:
            while waiting or under_way:
                room = 2 * at_once - len(under_way) if self._answered else at_once * (not under_way)
                for key in [waiting.popleft() for _ in range(min(room, len(waiting)))]:
                    under_way[pool.submit(self._answer, key, missing[key])] = key
                for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                    key, answer = under_way.pop(future), None
                    try:
                        answer = future.result()
                        denied = 0
                    except UnansweredError as fault:
                        faults[key] = fault
                        denied += bool(fault.settings)
                        self._end_where_all_fail(fault, faults, denied, len(missing))
                    if progress:
                        progress.add(1, answer.output_tokens or 0 if answer else 0)
                if self._answered:  # a page of another service was one reply gone wrong
                    for key in [key for key, fault in faults.items() if fault.again]:
                        del faults[key]
                        waiting.append(key)
                elif not under_way and (suspect := next((f for f in faults.values() if f.settings), None)):
                    raise UserError(suspect.settings)
        except UserError:
            self._stopping.set()
            pool.shutdown(cancel_futures=True)
            raise
        except BaseException:  # Ctrl-C, a full disk
            self._stopping.set()
            pool.shutdown(wait=False, cancel_futures=True)
            wait(under_way, timeout=LAST_ANSWERS_S)
            raise
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
            self._stopping = threading.Event()

    def _end_where_all_fail(
        self, fault: UnansweredError, faults: dict[str, UnansweredError], denied: int, n_missing: int
    ) -> None:
        """Raise if too many requests fail alike for their rows to be at fault."""
        unknown = sum(found.reason is None and not found.settings for found in faults.values())
        if not self._answered and not fault.settings and unknown >= min(REFUSED_BEFORE_ANY_ANSWER, n_missing):
            raise UserError(
                f"{self._url} refuses the request ({fault}); look at the stage's section in params.yaml and at the account"
            )
        if self._answered and denied >= DENIED_IN_A_ROW:
            raise UserError(f"{fault.settings} (the last {denied} requests)")

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
                if not fault.again or (fault.settings and not self._answered):
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
            with self._client.stream("POST", f"{self._url}/chat/completions", json=request) as response:
                content = self._read(response)
        except httpx.TimeoutException:
            raise UnansweredError(f"no answer within {self._settings.timeout_s:g} s", again=True) from None
        except httpx.RequestError as failure:  # no connection, one that was cut, a body that cannot be unpacked
            problem = self._masked(f"{type(failure).__name__}: {failure}")
            raise UnansweredError(problem, again=True) from None
        body, text = json_body(content), self._masked(content[:2_000].decode("utf-8", "replace"))
        error = error_in(body)
        if response.is_success and not error:
            return self._read_answer(body, content, text)
        number, codes = error_codes(error)
        status: int | None = response.status_code
        if response.is_success or (status == 400 and number):
            status = number
        problem = f"{status or response.status_code}: {self._masked(error_message(error, text))}"
        raise self._fault(classify(status, codes, problem), problem, asked_pause(response.headers))

    def _read(self, response: Any) -> bytes:
        """The body of a reply, up to the most bytes and as long as a request may take.

        Raises:
            UnansweredError: an answer is longer, or does not end.
        """
        parts, size, deadline = [], 0, time.monotonic() + self._settings.timeout_s
        for part in response.iter_bytes():
            parts.append(part)
            size += len(part)
            if size > MOST_BYTES:
                if not response.is_success:  # an error's beginning says enough
                    break
                problem = f"its answer has more than {MOST_BYTES // 2**20} MiB"
                raise UnansweredError(
                    problem,
                    again=False,
                    reason=CUT,
                    settings=f"{self._url}: {problem}; is this an OpenAI-compatible endpoint?",
                )
            if time.monotonic() > deadline:
                raise UnansweredError(f"its answer did not end within {self._settings.timeout_s:g} s", again=True)
        return b"".join(parts)

    def _read_answer(self, body: Any, content: bytes, text: str) -> Answer:
        """The answer in a reply of status 200.

        Raises:
            UnansweredError: it is no chat completion.
        """
        try:
            answer = read_answer(body)
        except (KeyError, TypeError, AttributeError):
            shown = " ".join(text.split())[:200]
            if body is None and cut_off(content):
                raise UnansweredError(f"the reply was cut off: {shown!r}", again=True) from None
            raise UnansweredError(
                f"no chat completion: {shown!r}",
                again=True,
                settings=f"{self._url} answered with something that is no chat completion: {shown!r}; is this an "
                "OpenAI-compatible endpoint?",
            ) from None
        return replace(answer, text=without_values(answer.text, self._api_key), model=self._masked(answer.model))

    def _masked(self, text: str) -> str:
        """A text from the endpoint for logs and errors: without the key, should it repeat it, and without tokens."""
        return redacted(without_values(text, self._api_key))

    def _fault(self, whose: str, problem: str, pause_s: float | None) -> UnansweredError:
        """The fault of one request.

        Raises:
            UserError: no request will be answered.
        """
        variable = self._settings.key_variable
        if whose == MONEY:
            self._stopping.set()  # before the next request goes out
            raise UserError(f"{self._url} refuses the request ({problem}); look at the account's limits and balance")
        state = "holds another" if self._api_key else "is not set"
        wrong_key = f"{self._url} wants a valid key ({problem}); the environment variable {variable} {state}"
        if whose == KEY:
            self._stopping.set()
            raise UserError(wrong_key)
        wrong_address = (
            f"{self._url} does not know the model '{self._model}', or is no such endpoint ({problem}); "
            "its source in `models` is api:URL#MODEL, and the URL mostly ends in /v1"
        )
        if whose == ADDRESS:
            self._stopping.set()
            raise UserError(wrong_address)
        if whose == DENIED:
            return UnansweredError(
                problem, again=False, settings=wrong_key if problem.startswith("403") else wrong_address
            )
        return UnansweredError(problem, whose == AGAIN, None if whose in (AGAIN, UNKNOWN) else whose, pause_s)


def asked_pause(headers: Mapping[str, str]) -> float | None:
    """Seconds that the headers of a reply ask to wait for, if they do."""
    if (exact := retry_after(headers.get("Retry-After-Ms"))) is not None:
        return exact / 1000
    return retry_after(headers.get("Retry-After"))
