"""Calls and plain values between two processes that do not trust each other: the tests and the candidate.

Values cross as JSON of Python's own types, so that the tests compare what was computed and never run a method of the candidate's
objects. What has no such form (functions, instances, iterators) stays where it is, and the other side gets a handle. Arguments
that a call changes in place are changed on the caller's side, too.

The tests never send an expected value: operators on a handle are refused, and a handle equals itself alone.
"""

import builtins
import json
import operator
import os
import struct
import types
from collections.abc import Callable, Iterator
from typing import Any

from scalequest.answers.sandbox_values import Decoder, Encoder, Place, shallow

# Longest message. The memory limit of the process comes first as a rule.
MESSAGE_BYTES = 64 << 20
ERRORS = {
    name: kind for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, BaseException)
}
ITERATORS = (types.GeneratorType, map, zip, filter, enumerate, reversed)


class OtherSideGone(BaseException):
    """The other process ended, or wrote what is no message. No ``except Exception`` of the tests swallows it."""


class Remote:
    """Something of the other process. Attributes and plain questions are asked there."""

    __slots__ = ("_ask",)

    def __init__(self, ask: Callable[..., Any]):
        object.__setattr__(self, "_ask", ask)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__name__", "__doc__"):
            raise AttributeError(name)
        return self._ask("get", name)

    def __setattr__(self, name: str, value: Any) -> None:
        self._ask("set", name, value)

    def __iter__(self) -> Iterator[Any]:
        return iter(self._ask("iter"))

    def __len__(self) -> int:
        return len(range(self._ask("len")))

    def __bool__(self) -> bool:
        return self._ask("bool") is True

    def __getitem__(self, key: Any) -> Any:
        return self._ask("item", key)

    def __setitem__(self, key: Any, value: Any) -> None:
        self._ask("put", key, value)

    def __str__(self) -> str:
        return f"{self._ask('str')}"

    def __repr__(self) -> str:
        return f"{self._ask('repr')}"

    def __enter__(self) -> Any:
        return self._ask("enter")

    def __exit__(self, *error: object) -> bool:
        return self._ask("exit") is True


def _operator(name: str) -> Callable[[Remote, Any], Any]:
    def apply(self: Remote, other: Any) -> Any:
        # Two things of the other side: it learns no expected value by that.
        return self._ask("operator", name, other) if isinstance(other, Remote) else NotImplemented

    return apply


for _name in "add sub mul truediv floordiv mod pow matmul lshift rshift lt le gt ge".split():  # noqa: SIM905
    setattr(Remote, f"__{_name}__", _operator(_name))


class RemoteFunction(Remote):
    """A function or class of the other process."""

    __slots__ = ()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call it there; the value, or what it raised."""
        return self._ask("call", args, kwargs)


class Channel:
    """One end of the connection. Both ends ask and answer; while one waits for an answer it answers what the other asks.

    Args:
        reads: pipe from the other end.
        writes: pipe to it.
        trusted: the end of the tests. It answers only for what the tests passed on: calls of their functions, iteration, and
            public attributes of instances of their classes.
        namespace: for the other end's questions by name.
    """

    def __init__(self, reads: int, writes: int, trusted: bool, namespace: dict[str, Any]):
        self.reads, self.writes, self.trusted, self.namespace = reads, writes, trusted, namespace
        self.given: dict[str, Any] = {}
        self.exported: list[Any] = []
        self.numbers: dict[int, int] = {}
        self.remotes: dict[int, Any] = {}

    # ---------------------------------------------------------------------------------------------------- messages

    def send(self, message: Any) -> None:
        """Write one message."""
        data = json.dumps(message).encode()
        data = struct.pack(">I", len(data)) + data
        try:
            while data:
                data = data[os.write(self.writes, data) :]
        except OSError as error:
            raise OtherSideGone("the other side is gone") from error

    def receive(self) -> Any:
        """Read one message."""
        [size] = struct.unpack(">I", self._read(4))
        if size > MESSAGE_BYTES:
            raise OtherSideGone("too long a message")
        try:
            return json.loads(self._read(size))
        except (ValueError, RecursionError, MemoryError) as error:
            raise OtherSideGone("no message") from error

    def _read(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            try:
                block = os.read(self.reads, min(size - len(data), 1 << 20))
            except OSError as error:
                raise OtherSideGone("the other side is gone") from error
            if not block:
                raise OtherSideGone("the other side is gone")
            data += block
        return data

    # ------------------------------------------------------------------------------------------------------- asking

    def ask(self, operation: str, *arguments: Any) -> Any:
        """Have the other side do something; its value, or raise what it raised."""
        sent = Encoder(self)
        self.send(["ask", operation, [sent.encode(argument) for argument in arguments]])
        while True:
            message = self.receive()
            try:
                if message[0] == "ask":
                    self.answer(message[1], message[2])
                    continue
                read = Decoder(self, sent.containers)
                if message[0] == "raise":
                    raised = _error(message[1], [read.decode(value) for value in message[2]])
                else:
                    [_, changes, value] = message
                    for number, content in changes:
                        read.refill(sent.containers[number], content)
                    return read.decode(value)
            except Exception as error:
                raise OtherSideGone(f"no answer: {type(error).__name__}") from error
            raise raised

    # ---------------------------------------------------------------------------------------------------- answering

    def serve(self) -> None:
        """Answer until the other side is gone."""
        try:
            while True:
                [_, operation, arguments] = self.receive()
                self.answer(operation, arguments)
        except OtherSideGone:
            return

    def answer(self, operation: str, arguments: list[Any]) -> None:
        """Do what the other side asks, and send the value with what the call changed in its arguments."""
        read = Decoder(self, [])
        values = [read.decode(argument) for argument in arguments]
        before = [shallow(self, container, read.containers) for container in read.containers]
        try:
            result = self._do(operation, *values)
            reply = Encoder(self, read.containers)
            changed = [
                at for at, text in enumerate(before) if shallow(self, read.containers[at], read.containers) != text
            ]
            changes = [[at, reply.content(read.containers[at])] for at in changed]
            message = ["ok", changes, reply.encode(result)]
        except OtherSideGone:
            raise
        except BaseException as error:
            message = ["raise", *_described(Encoder(self, read.containers), error)]
        self.send(message)

    def _do(self, operation: str, target: Any, *arguments: Any) -> Any:
        if self.trusted and not (
            operation in ("call", "next", "iter") or (operation == "get" and not str(arguments[0]).startswith("_"))
        ):
            raise AttributeError("the tests answer no such question")
        match operation:
            case "call":
                return target(*arguments[0], **arguments[1])
            case "next":
                return next(target)
            case "iter":
                return iter(target)
            case "await":
                import asyncio

                return asyncio.run(target)
            case "get":
                return getattr(target, arguments[0])
            case "set":
                return setattr(target, *arguments)
            case "item":
                return target[arguments[0]]
            case "put":
                target[arguments[0]] = arguments[1]
            case "len":
                return len(target)
            case "bool":
                return bool(target)
            case "str":
                return str(target)
            case "repr":
                return repr(target)
            case "enter":
                return target.__enter__()
            case "exit":
                return target.__exit__(None, None, None)
            case "operator":
                return getattr(operator, arguments[0])(target, arguments[1])
            case "name":
                return self.namespace[target]
            case "defined":
                # What the solution defines: not what the setup did.
                return [n for n in target if n in self.namespace and self.namespace[n] is not self.given.get(n, self)]
            case "define":
                self.namespace[target] = arguments[0]
        return None

    # ------------------------------------------------------------------------------------------------------ handles

    def handle(self, value: Any) -> list[Any]:
        """What the other side gets for something that stays here."""
        if isinstance(value, Remote):
            return ["yours", object.__getattribute__(value, "_ask").number]
        kind = (
            "iterator" if isinstance(value, ITERATORS) or hasattr(type(value), "__next__")
            else "coroutine" if isinstance(value, types.CoroutineType)
            else "function" if callable(value) else "object"
        )  # fmt: skip
        if self.trusted and not _may_pass(value, kind):
            raise TypeError(f"the tests cannot pass a {type(value).__name__} on")
        if id(value) not in self.numbers:
            self.numbers[id(value)] = len(self.exported)
            self.exported.append(value)  # kept, so that its id stays its own
        return ["mine", self.numbers[id(value)], kind]

    def remote(self, number: int, kind: str) -> Any:
        """What stands here for something of the other side; one object for each."""
        if number not in self.remotes:
            ask = Asking(self, number)
            self.remotes[number] = (
                _pull(ask) if kind == "iterator" else _wait_for(ask) if kind == "coroutine"
                else RemoteFunction(ask) if kind == "function" else Remote(ask)
            )  # fmt: skip
        return self.remotes[number]


class Asking(Place):
    """Asks the other side about one thing that it has exported."""

    def __init__(self, channel: Channel, number: int):
        super().__init__(number)
        self.channel = channel

    def __call__(self, operation: str, *arguments: Any) -> Any:
        """The value of an operation on the thing, or what it raised."""
        return self.channel.ask(operation, self, *arguments)


def _pull(ask: Asking) -> Iterator[Any]:
    while True:
        try:
            value = ask("next")
        except StopIteration:
            return
        yield value


async def _wait_for(ask: Asking) -> Any:
    return ask("await")


def _may_pass(value: Any, kind: str) -> bool:
    if kind in ("iterator", "function"):
        return not isinstance(value, type | types.ModuleType)
    return type(value).__module__ == "program" and kind == "object"


def _described(encoder: "Encoder", error: BaseException) -> tuple[list[str], list[Any]]:
    names = [kind.__name__ for kind in type(error).__mro__ if ERRORS.get(kind.__name__) is kind]
    try:
        arguments = [encoder.encode(value) if _is_plain(value) else str(value) for value in error.args]
    except Exception:
        arguments = []
    return [type(error).__name__, *names], arguments


def _is_plain(value: Any) -> bool:
    return value is None or isinstance(value, int | float | str | bytes)


def _error(names: list[str], arguments: list[Any]) -> BaseException:
    """The nearest of Python's own exceptions; ``said`` is the name under which it was raised."""
    for name in names[1:]:
        try:
            error: BaseException = ERRORS[name](*arguments)
        except TypeError:
            continue
        error.__dict__["said"] = str(names[0])
        return error
    return Exception(*arguments)
