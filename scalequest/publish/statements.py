"""What each stage was given and made, as in-toto statements with SLSA's provenance: the format of signed build records.

https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md, https://slsa.dev/spec/v1.0/provenance
"""

from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.audit.chain import Chain
from scalequest.audit.facts import environment_of
from scalequest.audit.history import History
from scalequest.audit.lock import LOCK, Artifact, Lock
from scalequest.audit.repository import Repository
from scalequest.audit.tables import Store
from scalequest.audit.takeover import taken_over
from scalequest.errors import UserError
from scalequest.io import file_hash
from scalequest.publish.public import public_values

STATEMENT, PROVENANCE = "https://in-toto.io/Statement/v1", "https://slsa.dev/provenance/v1"
BUILD = "https://dvc.org/doc/user-guide/project-structure/dvcyaml-files"
# Who ran it, where the repository has no public address.
LOCAL = "urn:scalequest:local"
# Of a folder: the MD5 of DVC's list of its files, which no other tool computes.
FOLDER = "dvcFolderMd5"


def stage_statements(repository: Repository, history: History, lock: Lock, origin: str) -> Iterator[dict[str, Any]]:
    """One statement per stage of the lock, in the order of the graph: command, parameters, inputs, code, outputs.

    Files are named by their MD5, as ``dvc.lock`` has it. Sources that are this machine's are left out (``public_values``).
    """
    store = Store(repository)
    for stage in lock.order():
        if not stage.outs:
            continue
        code = Chain(repository, history, lock, stage.outs[0].path).code(stage)
        earlier = taken_over(history, lock, stage)
        made_by = {"name": "code", "uri": origin or LOCAL, "digest": {"gitCommit": code.commit}}
        yield _statement(
            [found for out in stage.outs for found in _descriptors(out, store)],
            {"stage": stage.name, "command": stage.cmd, "parameters": public_values(stage.params)},
            {
                "environment": environment_of(repository, lock, stage),
                "uncommittedCode": sorted(code.dirty),
                "takenOver": "" if earlier is None else str(earlier),
            },
            [*(item for dep in stage.deps for item in _inputs(dep, lock, store)), *([made_by] if code.commit else [])],
            origin,
        )


def publication_statement(repository: Repository, lock: Lock, folder: Path, origin: str) -> dict[str, Any]:
    """The statement of the publication: each file of the folder by SHA-256, made of the lock of one commit."""
    content = repository.read(lock.revision, LOCK) or b""
    commit = lock.revision.commit or repository.head
    digest = {"sha256": sha256(content).hexdigest()} | ({"gitCommit": commit} if commit else {})
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return _statement(
        [{"name": path.relative_to(folder).as_posix(), "digest": {"sha256": file_hash(path)}} for path in files],
        {"stage": "publish", "command": "scalequest publish", "parameters": {}},
        {},
        [{"name": LOCK, "uri": origin or LOCAL, "digest": digest}],
        origin,
    )


def _statement(
    subjects: list[dict[str, Any]],
    given: dict[str, Any],
    found: dict[str, Any],
    inputs: list[dict[str, Any]],
    origin: str,
) -> dict[str, Any]:
    return {
        "_type": STATEMENT,
        "subject": subjects,
        "predicateType": PROVENANCE,
        "predicate": {
            "buildDefinition": {
                "buildType": BUILD,
                "externalParameters": given,
                "internalParameters": found,
                "resolvedDependencies": inputs,
            },
            "runDetails": {"builder": {"id": origin or LOCAL}},
        },
    }


def _descriptors(artifact: Artifact, store: Store) -> Iterator[dict[str, Any]]:
    """A file; a folder and, where the cache lists them, its files."""
    if not artifact.is_folder:
        yield {"name": artifact.path, "digest": {"md5": artifact.md5}}
        return
    yield {"name": artifact.path, "digest": {FOLDER: artifact.md5.removesuffix(".dir")}}
    try:
        listing = store.listing(artifact) or {}
    except UserError:  # damaged: its hash stays
        listing = {}
    for name, value in sorted(listing.items()):
        yield {"name": f"{artifact.path}/{name}", "digest": {"md5": value}}


def _inputs(dep: Artifact, lock: Lock, store: Store) -> Iterator[dict[str, Any]]:
    # Code folders are Git's, and not in DVC's cache.
    if lock.makers(dep.path):
        yield from _descriptors(dep, store)
    else:
        yield {"name": dep.path, "digest": {FOLDER if dep.is_folder else "md5": dep.md5.removesuffix(".dir")}}


def stage_name(statement: dict[str, Any]) -> str:
    """The stage that a statement is about."""
    return str(statement["predicate"]["buildDefinition"]["externalParameters"]["stage"])
