"""Laying one YAML text over another, keeping the comments and the layout of the lower one."""

from io import StringIO
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.nodes import MappingNode, Node, SequenceNode


def merge(base: Any, overlay: Any, replaces: list[str], key: str = "") -> Any:
    """Lay ``overlay`` over ``base``: mappings merge, all else replaces, and so do the mappings of ``replaces``."""
    if not isinstance(base, dict) or not isinstance(overlay, dict) or key in replaces:
        return overlay
    merged = dict(base)
    for name, value in overlay.items():
        path = f"{key}.{name}" if key else name
        merged[name] = merge(base[name], value, replaces, path) if name in base else value
    return merged


def compose(base: str, overlay: str, replaces: list[str]) -> str:
    """Lay one YAML text over another, keeping comments and layout of ``base``.

    Text is spliced at the positions that ruamel reports, because its round trip attaches the banner above a section
    to the last value of the section before, where replacing that section would delete it.

    Args:
        base: a complete parameter file.
        overlay: a part of one, at the same indentation.
        replaces: dotted keys of mappings to replace whole.

    Returns:
        The text whose values are ``merge(base, overlay)``.
    """
    edits: list[tuple[int, int, str]] = []
    old, new = _nodes(base), _nodes(overlay)
    if old is not None and new is not None:
        _splice(_Text(base), _Text(overlay), old, new, replaces, "", edits)
    text = base
    for start, end, piece in sorted(edits, reverse=True):
        text = text[:start] + piece + text[end:]
    wanted = merge(load_values(base), load_values(overlay), replaces)
    assert load_values(text) == wanted, "composed text and merged values differ: this is a bug of scalequest profile"
    return text


class _Text:
    """A YAML text with the ends of its entries."""

    def __init__(self, text: str) -> None:
        self.text = text

    def line_end(self, at: int) -> int:
        end = self.text.find("\n", at)
        return len(self.text) if end < 0 else end

    def line_start(self, at: int) -> int:
        return self.text.rfind("\n", 0, at) + 1

    def content_end(self, key: Node, value: Node) -> int:
        """Where the last scalar or bracket of an entry ends."""
        if isinstance(value, (MappingNode, SequenceNode)) and value.value and not value.flow_style:
            last = value.value[-1]
            return self.content_end(*last) if isinstance(value, MappingNode) else self.content_end(last, last)
        return max(key.end_mark.index, value.end_mark.index)

    def entry_end(self, key: Node, value: Node) -> int:
        """Where an entry ends, with the comment beside its last line and that comment's further lines."""
        at = self.content_end(key, value)
        end = self.line_end(at)
        beside = self.text[at:end]
        if "#" in beside:
            column = at + beside.index("#") - self.line_start(at)
            while end < len(self.text):
                following = self.text[end + 1 : self.line_end(end + 1)]
                if not following.lstrip().startswith("#") or following.index("#") != column:
                    break
                end = self.line_end(end + 1)
        return end


def _splice(
    base: _Text,
    over: _Text,
    old: MappingNode,
    new: MappingNode,
    replaces: list[str],
    path: str,
    edits: list[tuple[int, int, str]],
) -> None:
    """Collect the edits (start, end, text) that turn the block mapping ``old`` of ``base`` into the merged one."""
    have = {key.value: (key, value) for key, value in old.value}
    added = []
    for key, value in new.value:
        name = f"{path}.{key.value}" if path else key.value
        if name == "profile":
            continue
        if new.flow_style:  # {a: 1, b: 2}: an entry has no line of its own, and no comment
            tail, comment = ": " + over.text[value.start_mark.index : value.end_mark.index], ""
        else:
            end = over.content_end(key, value)
            tail, comment = over.text[key.end_mark.index : end], over.text[end : over.entry_end(key, value)]
        if key.value not in have:
            indent = " " * (old.value[0][0].start_mark.column if old.value else 0)
            added.append(f"\n{indent}{key.value}{tail}{comment}")
            continue
        old_key, old_value = have[key.value]
        if isinstance(value, MappingNode) and isinstance(old_value, MappingNode) and name not in replaces:
            if not old_value.flow_style:
                _splice(base, over, old_value, value, replaces, name, edits)
                continue
            merged = merge(_at(base.text, name), _at(over.text, name), replaces, name)
            tail = ": " + flow(merged)
        edits.append(_replace(base, old_key, old_value, tail, comment))
    if added:
        end = base.entry_end(*old.value[-1])
        edits.append((end, end, "".join(added)))


def _replace(base: _Text, key: Node, value: Node, tail: str, comment: str) -> tuple[int, int, str]:
    """Replace what follows a key; without a comment of its own, a new value keeps the comment beside the old one."""
    start, content = key.end_mark.index, base.content_end(key, value)
    end = base.entry_end(key, value)
    one_line = "\n" not in base.text[start:content] and "\n" not in tail
    if not comment.strip() and one_line:
        comment = base.text[content:end]
    if not comment.strip() or "\n" in tail:
        return start, end, tail + comment
    # A comment beside the value goes to the column of the old one where it fits; its further lines follow it.
    begin = start - base.line_start(start)
    beside = base.text[content:end].split("\n")[0]
    column = content + beside.index("#") - base.line_start(start) if "#" in beside and one_line else 0
    column = max(column, begin + len(tail) + 2)
    lines = [line.strip() for line in comment.split("\n")]
    return start, end, tail + " " * (column - begin - len(tail)) + ("\n" + " " * column).join(lines)


def _nodes(text: str) -> Any:
    return YAML(typ="safe", pure=True).compose(StringIO(text))


def load_values(text: str) -> Any:
    """The values of a parameter file, without the key ``profile``."""
    data = YAML(typ="safe", pure=True).load(text) or {}
    return {key: value for key, value in data.items() if key != "profile"}


def _at(text: str, key: str) -> Any:
    value = load_values(text)
    for part in key.split("."):
        value = value[part]
    return value


def flow(value: Any) -> str:
    """A value on one line of YAML."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style, yaml.width, yaml.sort_base_mapping_type_on_output = True, 10_000, False  # type: ignore[assignment]
    stream = StringIO()
    yaml.dump(value, stream)
    return stream.getvalue().strip()
