"""Plain values as JSON: the form in which the tests and the candidate exchange them (sandbox_calls.py).

A tag and its parts for what JSON lacks: ``["tuple", [1, 2]]``. Reading runs nothing: it makes
objects of Python's own types and of the setup's classes.
"""

import builtins
import importlib
import json
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NoReturn

if TYPE_CHECKING:
    from scalequest.answers.sandbox_calls import Channel

# Integers below it are JSON numbers, others hexadecimal text: reading decimals is slow and limited.
SMALL = 2**53
BUILTINS = {
    id(value): name for name, value in vars(builtins).items() if isinstance(value, type | types.BuiltinFunctionType)
}
# Values of the standard library that are written as text, with what reads them.
WRITTEN: dict[str, tuple[Callable[[Any], Any], str]] = {
    "decimal.Decimal": (str, ""),
    "fractions.Fraction": (str, ""),
    "datetime.date": (lambda x: x.isoformat(), "fromisoformat"),
    "datetime.datetime": (lambda x: x.isoformat(), "fromisoformat"),
    "datetime.time": (lambda x: x.isoformat(), "fromisoformat"),
}
DICTS = ("builtins.dict", "collections.Counter", "collections.OrderedDict", "collections.defaultdict")
# Plain value of an instance of a subclass, by the base's own methods.
BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (int, int.__pos__), (float, float.__pos__), (complex, complex.__pos__), (str, lambda x: str.__getitem__(x, slice(None))),
    (bytes, lambda x: bytes.__getitem__(x, slice(None))), (tuple, lambda x: tuple(tuple.__iter__(x))),
    (frozenset, lambda x: frozenset(frozenset.__iter__(x))),
)  # fmt: skip
VIEWS: tuple[type, ...] = (type({}.keys()), type({}.values()), type({}.items()))
MUTABLE = (list, dict, set, bytearray)


class Place:
    """Something that the other side has exported, by its number."""

    def __init__(self, number: int):
        self.number = number


def shallow(channel: "Channel", container: Any, containers: list[Any]) -> str:
    """The content of a container as text, containers in it by their number alone."""
    return json.dumps(Encoder(channel, containers).content(container))


def _place(channel: "Channel", x: Any) -> list[str] | None:
    """Where the candidate finds a function or class of the setup or of the standard library; None if it is neither."""
    if isinstance(x, types.ModuleType) and x.__name__.split(".")[0] in sys.stdlib_module_names:
        return ["module", x.__name__]
    if not isinstance(x, type | types.FunctionType | types.BuiltinFunctionType):
        return None
    name = str(x.__name__)
    if channel.given.get(name) is x:
        return ["setup", name]
    module = str(x.__module__)
    known = sys.modules.get(module) if module.split(".")[0] in sys.stdlib_module_names else None
    return ["import", module, name] if known and vars(known).get(name) is x else None


def _type_name(kind: type) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


class Encoder:
    """Values of one message as JSON. Containers that can change are numbered in order, and referred to when met again."""

    def __init__(self, channel: "Channel", containers: list[Any] | None = None):
        self.channel, self.containers = channel, list(containers or ())
        self.numbers = {id(container): at for at, container in enumerate(self.containers)}

    def encode(self, x: Any) -> Any:
        """The value as JSON."""
        kind = type(x)
        if x is None or kind in (bool, float, str):
            return x
        if kind is int:
            return x if -SMALL < x < SMALL else ["int", hex(x)]
        if isinstance(x, Place):
            return ["yours", x.number]
        if kind in (tuple, frozenset):
            return [kind.__name__, [self.encode(item) for item in x]]
        if kind is bytes:
            return ["bytes", x.hex()]
        if kind is complex:
            return ["complex", x.real, x.imag]
        if kind in (range, slice):
            return [kind.__name__, *(self.encode(part) for part in (x.start, x.stop, x.step))]
        if kind in VIEWS:
            return ["view", VIEWS.index(kind), [self.encode(item) for item in x]]
        if x is ... or x is NotImplemented:
            return ["builtin", "Ellipsis" if x is ... else "NotImplemented"]
        if id(x) in BUILTINS:
            return ["builtin", BUILTINS[id(x)]]
        if self.channel.trusted and (place := _place(self.channel, x)):
            return place
        return self._other(x, kind)

    def _other(self, x: Any, kind: type) -> Any:
        if id(x) in self.numbers:
            return ["ref", self.numbers[id(x)]]
        name = _type_name(kind)
        if kind in MUTABLE or issubclass(kind, MUTABLE) or name == "collections.deque" or self._is_setup_class(kind):
            self.numbers[id(x)] = len(self.containers)
            self.containers.append(x)
            return [*self._form(x, kind, name), self.content(x)]
        if name in WRITTEN and name.split(".")[0] in sys.modules:
            return ["written", name, WRITTEN[name][0](x)]
        if name == "datetime.timedelta":
            return ["timedelta", x.days, x.seconds, x.microseconds]
        for base, plain in BASES:
            if issubclass(kind, base):
                return self.encode(plain(x))
        return self.channel.handle(x)

    def _is_setup_class(self, kind: type) -> bool:
        """A class of the setup, or what the solution has put in its place; the other side has one of the same name."""
        name, channel = kind.__name__, self.channel
        return isinstance(channel.given.get(name), type) and kind in (channel.given[name], channel.namespace.get(name))

    def _form(self, x: Any, kind: type, name: str) -> list[Any]:
        if issubclass(kind, dict):
            factory = BUILTINS.get(id(getattr(x, "default_factory", None))) if name == DICTS[3] else None
            return ["dict", name if name in DICTS else DICTS[0], factory]
        for base in (list, set, bytearray):
            if issubclass(kind, base):
                return [base.__name__]
        return ["deque", x.maxlen] if name == "collections.deque" else ["instance", kind.__name__]

    def content(self, x: Any) -> Any:
        """What is in a container, by the base's own methods."""
        if isinstance(x, list):
            return [self.encode(item) for item in list.__iter__(x)]
        if isinstance(x, dict):
            items = x.items() if _type_name(type(x)) in DICTS else dict.items(x)
            return [[self.encode(key), self.encode(value)] for key, value in items]
        if isinstance(x, set):
            return [self.encode(item) for item in set.__iter__(x)]
        if isinstance(x, bytearray):
            return bytes(x).hex()
        if self._is_setup_class(type(x)):
            return [[key, self.encode(value)] for key, value in vars(x).items()]
        return [self.encode(item) for item in x]


class Decoder:
    """Values of one message from JSON. Nothing in it is run: it makes objects of Python's own types
    and of the setup's classes.
    """

    def __init__(self, channel: "Channel", containers: list[Any]):
        self.channel, self.containers = channel, list(containers)

    def decode(self, x: Any) -> Any:
        """The value of JSON."""
        if not isinstance(x, list):
            if isinstance(x, dict):
                _refuse("a JSON object")
            return x
        [tag, *rest] = x
        match tag:
            case "int":
                return int(rest[0], 16)
            case "tuple":
                return tuple(self.decode(item) for item in rest[0])
            case "frozenset":
                return frozenset(self.decode(item) for item in rest[0])
            case "bytes":
                return bytes.fromhex(rest[0])
            case "complex":
                return complex(float(rest[0]), float(rest[1]))
            case "range":
                return range(*(self.decode(part) for part in rest))
            case "slice":
                return slice(*(self.decode(part) for part in rest))
            case "view":
                items = [self.decode(item) for item in rest[1]]
                made = (dict.fromkeys(items), dict(enumerate(items)), dict(items) if rest[0] == 2 else {})[rest[0]]
                return (made.keys, made.values, made.items)[rest[0]]()
            case "builtin":
                return self._builtin(rest[0])
            case "import" if not self.channel.trusted:
                return getattr(importlib.import_module(rest[0]), rest[1])
            case "module" if not self.channel.trusted:
                return importlib.import_module(rest[0])
            case "setup" if not self.channel.trusted:
                return self.channel.given[rest[0]]
            case "written":
                module, _, name = rest[0].partition(".")
                kind = getattr(importlib.import_module(module), name) if rest[0] in WRITTEN else _refuse(rest[0])
                reader = WRITTEN[rest[0]][1]
                return (getattr(kind, reader) if reader else kind)(str(rest[1]))
            case "timedelta":
                return importlib.import_module("datetime").timedelta(*map(int, rest))
            case "ref":
                return self.containers[rest[0]]
            case "mine":
                return self.channel.remote(int(rest[0]), str(rest[1]))
            case "yours":
                return self.channel.exported[rest[0]]
        container = self._empty(tag, rest)
        self.containers.append(container)
        self.refill(container, rest[-1])
        return container

    def _builtin(self, name: str) -> Any:
        value = vars(builtins)[name]
        # The candidate may send back a type, not `exec`.
        return _refuse(name) if self.channel.trusted and isinstance(value, types.BuiltinFunctionType) else value

    def _empty(self, tag: str, rest: list[Any]) -> Any:
        match tag:
            case "list":
                return []
            case "set":
                return set()
            case "bytearray":
                return bytearray()
            case "dict":
                module, _, name = (rest[0] if rest[0] in DICTS else _refuse(rest[0])).partition(".")
                container = getattr(importlib.import_module(module), name)()
                if rest[1] is not None:
                    container.default_factory = self._builtin(rest[1])
                return container
            case "deque":
                return importlib.import_module("collections").deque(maxlen=rest[0])
            case "instance":
                kind = self.channel.namespace.get(rest[0], self.channel.given[rest[0]])
                return object.__new__(kind) if isinstance(kind, type) else _refuse(rest[0])
        return _refuse(tag)

    def refill(self, container: Any, content: Any) -> None:
        """Give a container the content of the other side's."""
        if isinstance(container, bytearray):
            container[:] = bytes.fromhex(content)
        elif isinstance(container, dict):
            pairs = [(self.decode(key), self.decode(value)) for key, value in content]
            container.clear()
            for key, value in pairs:  # Counter.update would add, dict.update leave an OrderedDict without its order
                container[key] = value
        elif isinstance(container, set):
            items = [self.decode(item) for item in content]
            container.clear()
            container.update(items)
        elif isinstance(container, list):
            container[:] = [self.decode(item) for item in content]
        elif _type_name(type(container)) == "collections.deque":
            items = [self.decode(item) for item in content]
            container.clear()
            container.extend(items)
        else:
            vars(container).clear()
            # No method of the setup's class is replaced by what the candidate sends.
            own = {
                str(key): self.decode(value)
                for key, value in content
                if not callable(getattr(type(container), str(key), None))
            }
            vars(container).update(own)


def _refuse(what: object) -> NoReturn:
    raise ValueError(f"not a value that may be sent: {what!r}")
