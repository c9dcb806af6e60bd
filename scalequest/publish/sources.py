"""What a published output was made from: models and seeds, with licences, package URLs and addresses."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

from scalequest.audit.chain import Chain
from scalequest.audit.facts import environment_of
from scalequest.audit.lock import Lock, Stage
from scalequest.audit.tables import Store
from scalequest.publish.cards import LICENCES, ROLES, UNKNOWN, Source
from scalequest.publish.public import public_source

# What a licence may look like: the cards are Markdown and YAML, and a model's README is anybody's.
LICENCE_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+_-]{0,63}")
MAX_CARD = 1 << 20
# Of the hub, by the kind of source.
HUB = "https://huggingface.co"


def find_sources(chain: Chain, store: Store, licences: dict[str, str]) -> Iterator[Source]:
    """The models that were fetched and the seeds that were collected for an output, with their licences."""
    for stage in reversed(chain.stages):
        if stage.base == "seeds":
            environment = environment_of(chain.repository, chain.lock, stage)
            yield from _seed_sources(stage, licences, dict(line.split("==", 1) for line in environment if "==" in line))
    for stage in reversed(chain.stages):
        if stage.base == "fetch_model":
            role = stage.option("role") or stage.name
            source = str(stage.params.get(f"models.{role}", UNKNOWN))
            found = licences.get(role) or _model_licence(stage, source, store, chain.lock)
            purl, place = model_address(source)
            yield Source(role, ROLES.get(role, "is tuned to generate questions"), public_source(source), found, True, purl, place)  # fmt: skip


def model_address(source: str) -> tuple[str, str]:
    """Package URL and address of a model's source; both are empty for a folder of this machine and for an endpoint."""
    kind, _, rest = source.partition(":")
    if kind == "hf":
        repo, _, commit = rest.partition("@")
        # The specification wants the commit as the version, in lower case.
        return f"pkg:huggingface/{repo}@{commit.lower()}", f"{HUB}/{repo}/tree/{commit}"
    if kind == "pypi":
        name, _, version = rest.partition("#")[0].partition("==")
        return package_url(name, version), f"https://pypi.org/project/{name}/{version}/"
    return "", ""


def package_url(name: str, version: str = "") -> str:
    """Package URL of a Python package; without a version where it is not known."""
    return f"pkg:pypi/{name.lower().replace('_', '-')}{f'@{quote(version)}' if version else ''}"


def _seed_sources(stage: Stage, licences: dict[str, str], packages: dict[str, str]) -> Iterator[Source]:
    names = dict.fromkeys(key.split(".")[1] for key in stage.params if key.startswith("seeds."))
    for name in names:
        settings = {key.split(".", 2)[2]: value for key, value in stage.params.items() if key.startswith(f"seeds.{name}.")}  # fmt: skip
        purl = address = ""
        if settings.get("kind") == "reasoning_gym":
            source, purl = (
                f"reasoning_gym/{settings['dataset']}",
                package_url("reasoning-gym", packages.get("reasoning-gym", "")),
            )
            known = LICENCES.get(source, LICENCES["reasoning_gym"])
        else:
            # A data set of the hub, a package, or a file.
            place = settings.get("repo") or settings.get("package") or Path(str(settings.get("path", UNKNOWN))).name
            source, known = str(place), UNKNOWN
        if settings.get("kind") == "hub":
            address = (
                f"{HUB}/datasets/{settings['repo']}/blob/{settings.get('commit', 'main')}/{settings.get('file', '')}"
            )
        if settings.get("kind") == "package":
            purl = package_url(str(settings["package"]), str(settings.get("version", "")))
        yield Source(name, "seed problems", source, licences.get(name, known), False, purl, address)


def _model_licence(stage: Stage, source: str, store: Store, lock: Lock) -> str:
    """What the model says of itself: its folder's card, else its page on the hub; else what this repository knows."""
    folder = stage.outs[0]
    card = store.files(folder, lock.revision).get("README.md") if store.has(folder, lock.revision) else None
    if card and (stated := stated_licence(card)):
        return stated
    if source.startswith("hf:"):
        from huggingface_hub import HfApi
        from huggingface_hub.errors import HfHubHTTPError

        repo, _, commit = source.removeprefix("hf:").partition("@")
        try:
            data = HfApi().model_info(repo, revision=commit, timeout=10).card_data
        except (HfHubHTTPError, OSError):
            return UNKNOWN
        return licence_id(data.to_dict().get("license") if data else None) or UNKNOWN
    return LICENCES.get(source.split("==")[0], UNKNOWN)


def licence_id(stated: Any) -> str:
    """A licence as the hub writes one, ``apache-2.0``; empty for anything else that a model may state."""
    return stated if isinstance(stated, str) and LICENCE_ID.fullmatch(stated) else ""


def stated_licence(card: Path) -> str:
    """The licence in the head of a model's README; empty where it has none or cannot be read."""
    from yaml import YAMLError, safe_load

    with card.open("rb") as file:
        text = file.read(MAX_CARD).decode(errors="replace").replace("\r\n", "\n")
    head = text.split("\n---", 1)[0].removeprefix("---\n") if text.startswith("---\n") else ""
    try:
        data = safe_load(head)
    except (YAMLError, ValueError, RecursionError, TypeError):
        return ""
    return licence_id(data.get("license")) if isinstance(data, dict) else ""
