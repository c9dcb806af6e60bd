"""Switch params.yaml to a profile, or list the profiles.

    scalequest profile                     # list the profiles, marking the one in use
    scalequest profile gpu-135m            # write params.yaml, and show what changed
    scalequest profile laptop              # return to the repository's own params.yaml
    scalequest profile gpu-135m --out F    # write the composed file elsewhere (- for standard output)

params.yaml documents every parameter and holds the values of the laptop run. A profile in profiles/ is an overlay: it
holds what differs, and why. Mappings merge key by key, scalars and lists replace, and a mapping named under the
profile's own key ``profile.replaces`` replaces the whole mapping. ``profile.on`` names another profile to start from.
All comments of params.yaml are kept, except where the profile has a comment of its own beside a value.

Edits are never lost silently. params.yaml is overwritten only if it is what this command wrote, or what HEAD holds, or
a copy of a profile. Anything else needs --force, which first saves the old file as a Git object and prints its name.

Git keeps the base. A composed params.yaml starts with a line that says so, and the base is the params.yaml of the newest
commit that has no such line. So a composed file may be committed, and no second copy of 300 lines has to be kept in step.
"""

import argparse
import difflib
import hashlib
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import write_text
from scalequest.params import PARAMS_FILE, Params, check_there, parse_params, parse_yaml, read_yaml
from scalequest.params.file import read_text
from scalequest.run.compose import compose, flow, load_values
from scalequest.run.outputs import check_output

FOLDER = Path("profiles")
# The name of the repository's own params.yaml.
BASE = "laptop"
MARK = "# Composed by `scalequest profile "
# Longest value shown in a list of changes, in characters.
SHOWN = 70


@dataclass(frozen=True)
class Profile:
    """One overlay file.

    Attributes:
        name: file name without its ending.
        text: the YAML text.
        summary: what the profile is for, in one line.
        on: the profile that this one starts from; None for the repository's own params.yaml.
        replaces: dotted keys of mappings that are replaced whole instead of merged.
        values: what the overlay sets.
    """

    name: str
    text: str
    summary: str
    on: str | None = None
    replaces: list[str] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)


# ------------------------------------------------------------------------------------------------------------- files


def profiles(root: Path = Path()) -> dict[str, Path]:
    """Return the overlay files by name, sorted."""
    return dict(sorted((path.stem, path) for path in (root / FOLDER).glob("*.yaml")))


def read_overlay(path: Path) -> Profile:
    """Read and check the overlay's own key ``profile``."""
    try:
        text = read_text(path)
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}. Expected a profile. `scalequest profile` lists them.") from None
    data = parse_yaml(text, path)
    head = data.pop("profile", None)
    if not isinstance(head, dict) or not isinstance(head.get("summary"), str):
        raise UserError(
            f"{path}: no key `profile` with a `summary`. Expected an overlay; profiles/gpu-135m.yaml is an example. "
            "Add the key, or copy a complete parameter file to params.yaml yourself."
        )
    if unknown := set(head) - {"summary", "on", "replaces"}:
        raise UserError(f"{path}: profile.{min(unknown)}: unknown key. Expected summary, on, replaces.")
    replaces = head.get("replaces") or []
    if not isinstance(replaces, list):
        raise UserError(
            f"{path}: profile.replaces: {replaces!r}. Expected a list of dotted keys such as [seeds, filter.shares]."
        )
    for key in replaces:
        value: Any = data
        for part in str(key).split("."):
            value = value.get(part) if isinstance(value, dict) else None
        if not isinstance(value, dict):
            raise UserError(
                f"{path}: profile.replaces: the profile sets no mapping '{key}'. Add it, or remove the name."
            )
    return Profile(path.stem, text, head["summary"], head.get("on"), replaces, data)


def find(name: str, root: Path = Path()) -> Path:
    """Return the overlay file that a name or a path means.

    Raises:
        UserError: there is none; the message names the closest profile, or all of them.
    """
    known = profiles(root)
    if name in known:
        return known[name]
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and (root / path).is_file():
        return root / path
    names = [BASE, *known]
    close = difflib.get_close_matches(path.stem if path.suffix else name, names, n=1)
    hint = (
        f"Did you mean '{close[0]}'?" if close else f"Expected one of: {', '.join(names)}, or the path of an overlay."
    )
    raise UserError(f"profile '{name}': no such profile. {hint}")


def is_base(name: str) -> bool:
    """Whether a name means the repository's own params.yaml."""
    return name in (BASE, PARAMS_FILE)


def compose_profile(name: str, root: Path = Path(), base: str | None = None) -> str:
    """Return the complete parameter file of a profile, without the line that marks a composed file."""
    return _layers(name, root, base_text(root) if base is None else base, [])


def _layers(name: str, root: Path, base: str, above: list[str]) -> str:
    if is_base(name):
        return base
    profile = read_overlay(find(name, root))
    if profile.name in above:
        raise UserError(
            f"profile '{profile.name}': profile.on leads back to itself: {' -> '.join([*above, profile.name])}."
        )
    lower = _layers(profile.on, root, base, [*above, profile.name]) if profile.on else base
    return compose(lower, profile.text, profile.replaces)


def load_profile(name: str = BASE, root: Path = Path()) -> Params:
    """Return the checked parameters of a profile (a name or an overlay's path) or of a complete parameter file.

    Raises:
        UserError: no such profile or file, or values that are not valid.
    """
    path = root / name
    if path.suffix in (".yaml", ".yml") and name != PARAMS_FILE and path.is_file():
        data = parse_yaml(read_text(path), path)
        if "profile" not in data:
            return parse_params(data, str(path))
    elif name == PARAMS_FILE:
        return parse_params(read_yaml(root / name), name)
    if not (root / FOLDER).is_dir():
        check_there(root / PARAMS_FILE)
    text = compose_profile(name, root)
    origin = PARAMS_FILE if is_base(name) else f"{name} over {PARAMS_FILE}"
    return parse_params(parse_yaml(text, Path(origin)), origin)


# --------------------------------------------------------------------------------------------------- base and edits


def _git(root: Path, *words: str, stdin: str | None = None) -> str | None:
    """Output of a Git command; None where it fails or Git is missing."""
    try:
        done = subprocess.run(["git", *words], cwd=root, input=stdin, capture_output=True, text=True, encoding="utf-8")
    except OSError:
        return None
    return done.stdout if done.returncode == 0 else None


def written_by(text: str) -> str | None:
    """Return the profile that a composed file names in its first line; None for a file that no profile wrote."""
    first = text.split("\n", 1)[0]
    return first.removeprefix(MARK).split("`")[0] if first.startswith(MARK) else None


def _digest(body: str) -> str:
    return hashlib.sha256(body.encode()).hexdigest()[:16]


def mark(name: str, body: str) -> str:
    """Return a composed file: the line that names its profile and the hash of the rest, then the rest."""
    return f"{MARK}{name}` (content {_digest(body)}); `scalequest profile {BASE}` goes back.\n{body}"


def is_untouched(text: str) -> bool:
    """Whether a composed file is as it was written."""
    first, _, body = text.partition("\n")
    return written_by(text) is not None and f"(content {_digest(body)})" in first


def base_text(root: Path = Path()) -> str:
    """Return the repository's own params.yaml: the newest committed one that no profile wrote.

    The working file is taken instead where Git has none, and where the committed one lacks a parameter that was just added.

    Raises:
        UserError: params.yaml was composed and this clone holds no commit of the file from before.
    """
    path = root / PARAMS_FILE
    working = read_text(path) if path.is_file() else ""
    own = bool(working) and written_by(working) is None and "\nprofile:" not in f"\n{working}"
    for commit in (_git(root, "log", "--format=%H", "--", PARAMS_FILE) or "").split():
        text = _git(root, "show", f"{commit}:./{PARAMS_FILE}")
        if text and written_by(text) is None:
            if not own or text == working or _is_valid(text) or not _is_valid(working):
                return text
            break
    if own:
        return working
    raise UserError(
        f"{path}: no commit of this clone holds the repository's own parameters. Expected Git's history, which keeps them. "
        "Run `git fetch --unshallow`, or copy params.yaml from the project's main branch."
    )


def _is_valid(text: str) -> bool:
    try:
        parse_params(parse_yaml(text, Path(PARAMS_FILE)))
    except UserError:
        return False
    return True


def is_saved(text: str, root: Path = Path()) -> bool:
    """Whether overwriting this params.yaml loses nothing: the command wrote it, HEAD holds it, or a profile's file does."""
    if is_untouched(text) or text == _git(root, "show", f"HEAD:./{PARAMS_FILE}"):
        return True
    return any(text == read_text(path) for path in profiles(root).values())


def changes(old: Any, new: Any, key: str = "") -> list[str]:
    """Return one line per value that differs: ``key: old -> new``."""
    if old == new:
        return []
    if not isinstance(old, dict) or not isinstance(new, dict):
        return [f"{key}: {_short(old)} -> {_short(new)}"]
    lines = []
    for name in [*old, *(name for name in new if name not in old)]:
        path = f"{key}.{name}" if key else name
        if name not in new:
            lines.append(f"{path}: {_short(old[name])} removed")
        elif name not in old:
            lines.append(f"{path}: {_short(new[name])} added")
        else:
            lines += changes(old[name], new[name], path)
    return lines


def _short(value: Any) -> str:
    text = (
        flow(value).removesuffix("\n...") if isinstance(value, dict | list) else "null" if value is None else str(value)
    )
    text = text if not isinstance(value, bool) else text.lower()
    return text if len(text) <= SHOWN else text[: SHOWN - 1] + "…"


def edits(text: str, root: Path = Path()) -> list[str]:
    """Return the values in which an edited params.yaml differs from what wrote it (or from HEAD), one line each."""
    name = written_by(text)
    before = compose_profile(name, root) if name else _git(root, "show", f"HEAD:./{PARAMS_FILE}") or base_text(root)
    try:
        return changes(load_values(before), parse_yaml(text, Path(PARAMS_FILE)))
    except UserError as error:
        return [str(error)]


def switch(name: str, root: Path = Path(), force: bool = False) -> list[str]:
    """Write params.yaml as a profile has it.

    Returns:
        What changed, one line per value.

    Raises:
        UserError: the profile is unknown or not valid, or params.yaml holds edits that nothing else keeps.
    """
    path = root / PARAMS_FILE
    old = read_text(path) if path.is_file() else ""
    load_profile(BASE if is_base(name) else name, root)
    body = compose_profile(name, root)
    new = body if is_base(name) else mark(name, body)
    if old and old != new and not is_saved(old, root):
        if not force and written_by(old) is None and _git(root, "show", f"HEAD:./{PARAMS_FILE}") is None:
            raise UserError(
                f"{path}: no commit of Git holds this file, so switching would lose it. Expected a file that Git or this command can "
                "restore. Commit params.yaml, or pass --force, which keeps a copy."
            )
        if not force:
            found = edits(old, root)
            listed = "\n".join(f"  {line}" for line in found[:12]) or "  comments or layout only"
            more = f"\n  and {len(found) - 12} more" if len(found) > 12 else ""
            raise UserError(
                f"{path}: it holds edits that switching would lose:\n{listed}{more}\n"
                "Expected a file that Git or this command can restore. Commit params.yaml, undo the edits "
                f"(`git checkout {PARAMS_FILE}`), or pass --force."
            )
        if saved := _git(root, "hash-object", "-w", "--stdin", stdin=old):
            print(f"the old file is kept: git cat-file -p {saved.strip()[:12]} > {PARAMS_FILE}", file=sys.stderr)
        else:
            write_text(kept := path.with_name(f"{PARAMS_FILE}.bak"), old)
            print(f"there is no Git here; the old file is kept: {kept}", file=sys.stderr)
    try:
        before = parse_yaml(old, path) if old else {}
    except UserError:  # what --force replaces need not be YAML
        before = {}
    write_text(path, new)
    return changes(before, parse_yaml(new, path))


# ----------------------------------------------------------------------------------------------------------- command


def listing(root: Path = Path()) -> str:
    """Return one line per profile; a star marks the one that params.yaml was written from."""
    path = root / PARAMS_FILE
    text = read_text(path) if path.is_file() else ""
    current = written_by(text) or BASE
    rows = [(BASE, "the repository's own params.yaml: SmolLM2-135M in every role, two CPU cores, 20 minutes")]
    rows += [(name, read_overlay(file).summary) for name, file in profiles(root).items()]
    width = max(len(name) for name, _ in rows)
    edited = "" if not text or is_saved(text, root) else " (edited)"
    return "\n".join(
        f"{'*' if name == current else ' '} {name:<{width}}  {summary}{edited if name == current else ''}"
        for name, summary in rows
    )


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest profile``."""
    parser.add_argument(
        "name", nargs="?", help="a name in profiles/, a path of an overlay, or laptop (default: list them)"
    )
    parser.add_argument(
        "--out", metavar="FILE", help="write the composed file there instead of params.yaml; - prints it"
    )
    parser.add_argument(
        "--force", action="store_true", help="overwrite edits of params.yaml; the old file is kept in Git"
    )


def run(args: argparse.Namespace) -> int:
    """List the profiles, or switch params.yaml to one."""
    if not FOLDER.is_dir():
        check_there(Path(PARAMS_FILE))
    if args.name is None:
        if args.out is not None or args.force:
            raise UserError("profile: --out and --force need a name. Expected one of the list: `scalequest profile`.")
        print(listing())
        return 0
    # params.yaml itself is written by ``switch``, which loses no edit.
    if args.out and Path(args.out).resolve() != Path(PARAMS_FILE).resolve():
        if args.out != "-":
            check_output("--out", Path(args.out))
        load_profile(BASE if is_base(args.name) else args.name)
        body = compose_profile(args.name)
        text = body if is_base(args.name) else mark(args.name, body)
        if args.out == "-":
            sys.stdout.write(text)
        else:
            write_text(Path(args.out), text)
        return 0
    lines = switch(args.name, force=args.force)
    print("\n".join([*lines, f"params.yaml: {len(lines)} value(s) changed; profile {args.name}"]))
    print("Next: `scalequest check` names what a run would stop at.")
    return 0
