"""Sign what is published, and check the signature: an OpenSSF Model Signing bundle over files, lock and statements.

    openssl ecparam -name prime256v1 -genkey -noout -out KEY && openssl ec -in KEY -pubout -out KEY.pub
    scalequest publish --sign KEY
    scalequest verify --key KEY.pub [FOLDER ...]

Each folder has ``model.sig`` and ``lineage/``: the lock, and a statement per stage. The bundle names every file by
SHA-256. ``model_signing verify key`` accepts it, too. Nothing is sent anywhere, and no key is printed.
https://github.com/ossf/model-signing-spec
"""

import base64
import json
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path
from typing import Any

from scalequest.audit.links import Broken, Check
from scalequest.audit.lock import LOCK, Lock, parse_yaml
from scalequest.audit.repository import Repository
from scalequest.errors import UserError
from scalequest.io import write_text
from scalequest.publish.public import public_values

SIGNATURE = "model.sig"
LINEAGE, STATEMENTS = "lineage", "stages.intoto.jsonl"
PAYLOAD = "application/vnd.in-toto+json"
# What the hub and its client add to a folder that was signed before.
UNSIGNED = (SIGNATURE, ".gitattributes", ".cache/huggingface")
CURVES = {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}
EXPECTED = f"a PEM file with an elliptic curve key ({', '.join(CURVES.values())})"
MAKE = "Make one: openssl ecparam -name prime256v1 -genkey -noout -out KEY && openssl ec -in KEY -pubout -out KEY.pub"


def require_package() -> None:
    """See that the packages for signing are here.

    Raises:
        UserError: they are not.
    """
    try:
        import model_signing  # noqa: F401
        import OpenSSL  # noqa: F401
    except ImportError as error:
        raise UserError(
            f"signatures: the package {error.name} is not installed. Expected the extra `sign`. Run: pip install 'scalequest[sign]'"
        ) from None


# ---------------------------------------------------------------------------------------------------------------- keys


def private_key(path: Path, out: Path) -> Any:
    """The private key in a file that is not about to be published itself.

    Raises:
        UserError: it is none that can sign, or it is below ``out``. No message repeats what is in the file.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    if path.resolve().is_relative_to(out.resolve()):
        raise UserError(f"--sign {path}: this key is in {out}, which is published. Expected a key elsewhere. Move it, and make a new one if {out} was uploaded")  # fmt: skip
    content = _read(path, "--sign", "private")
    try:
        key = load_pem_private_key(content, None)
    except TypeError:
        raise UserError(
            f"--sign {path}: this key has a password. Expected one without. Run: openssl pkey -in {path} -out PLAIN"
        ) from None
    except Exception:
        raise UserError(f"--sign {path}: no private key. Expected {EXPECTED}. {MAKE}") from None
    _check_curve(key, path, "--sign", "private")
    return key


def public_key(path: Path) -> Any:
    """The public key in a file.

    Raises:
        UserError: it is none.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    content = _read(path, "--key", "public")
    if b"PRIVATE KEY" in content:
        raise UserError(f"--key {path}: a private key. Expected its public half. Run: openssl ec -in {path} -pubout -out KEY.pub")  # fmt: skip
    try:
        key = load_pem_public_key(content)
    except Exception:
        raise UserError(f"--key {path}: no public key. Expected {EXPECTED}. Ask the publisher for it") from None
    _check_curve(key, path, "--key", "public")
    return key


def _read(path: Path, option: str, kind: str) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{option} {path}: {error.strerror}. Expected the {kind} key, {EXPECTED}. {MAKE}") from None


def _check_curve(key: Any, path: Path, option: str, kind: str) -> None:
    curve = getattr(getattr(key, "curve", None), "name", type(key).__name__)
    if curve not in CURVES:
        raise UserError(f"{option} {path}: a {kind} key of the kind {curve}. Expected {EXPECTED}. {MAKE}")


def fingerprint(public: Any) -> str:
    """SHA-256 of a public key's PEM, as the bundle names it."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return sha256(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)).hexdigest()


# ------------------------------------------------------------------------------------------------------------- signing


def write_lock(repository: Repository, lock: Lock, folder: Path) -> None:
    """Write the revision's lock into a folder, without what is this machine's."""
    import yaml

    content = repository.read(lock.revision, LOCK) or b""
    data = parse_yaml(content, LOCK)
    shown = public_values(data)
    text = content.decode() if shown == data else yaml.safe_dump(shown, sort_keys=False, allow_unicode=True)
    write_text(folder / LINEAGE / LOCK, text)


def sign_folder(folder: Path, statements: Sequence[dict[str, Any]], key_path: Path, key: Any) -> None:
    """Write the signed statements, and the bundle over every file of a folder.

    Args:
        folder: ``hub/dataset`` or ``hub/model``, complete apart from this.
        statements: of the stages and of the publication.
        key_path: file of the private key.
        key: the private key itself, for the statements.
    """
    from model_signing import hashing, signing
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import CryptoSigner

    signer = CryptoSigner(key)
    lines = []
    for statement in statements:
        envelope = Envelope(json.dumps(statement, ensure_ascii=False).encode(), PAYLOAD, {})
        envelope.sign(signer)
        lines.append(json.dumps(envelope.to_dict()))
    write_text(folder / LINEAGE / STATEMENTS, "\n".join(lines) + "\n")
    with _quiet():
        config = hashing.Config().set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False)
        signing.Config().use_elliptic_key_signer(private_key=key_path).set_hashing_config(config).sign(
            folder, folder / SIGNATURE
        )


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the packages' own log lines: this command says what happened."""
    logger = logging.getLogger("model_signing")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before


# ------------------------------------------------------------------------------------------------------------ checking


def verify_signatures(folders: Sequence[Path], key_path: Path) -> list[Check]:
    """One check per signed folder: its files are those that the owner of the key signed.

    Args:
        folders: signed ones, or ``hub``, which stands for ``hub/dataset`` and ``hub/model``.
        key_path: file of the public key.

    Raises:
        UserError: a folder is not there, or the key is none.
    """
    require_package()
    key = public_key(key_path)
    found = [part for folder in folders for part in _parts(folder)]
    checks = [_check(folder, key_path, key) for folder in found]
    locks = {(folder / LINEAGE / LOCK).read_bytes() for folder, check in zip(found, checks, strict=True) if not check.broken}  # fmt: skip
    if len(locks) > 1:
        names = ", ".join(str(folder) for folder in found)
        checks.append(Check("one run", len(found), (Broken(names, "each is signed, and their locks are of different runs. Expected one run's data and model. Download both from one release"),)))  # fmt: skip
    return checks


def _parts(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise UserError(f"verify --key: {folder}: no such folder. Expected what `scalequest publish --sign KEY` wrote. Name it: scalequest verify --key KEY.pub FOLDER")  # fmt: skip
    parts = [folder / name for name in ("dataset", "model") if (folder / name).is_dir()]
    return [folder] if (folder / SIGNATURE).is_file() or not parts else parts


def _check(folder: Path, key_path: Path, key: Any) -> Check:
    broken = list(_broken(folder, key_path, key))
    links = sum(path.is_file() for path in folder.rglob("*"))
    return Check(f"signature of {folder}, key {fingerprint(key)[:16]}", links, tuple(broken))


def _broken(folder: Path, key_path: Path, key: Any) -> Iterator[Broken]:
    from cryptography.exceptions import InvalidSignature
    from model_signing import hashing, verifying

    bundle = folder / SIGNATURE
    again = "Expected the published bytes. Download them again"
    if not bundle.is_file():
        yield Broken(str(folder), f"no {SIGNATURE}, so it is not signed. Expected one. Ask the publisher for a signed release")  # fmt: skip
        return
    try:
        payload = _payload(bundle)
        hint = json.loads(bundle.read_text())["verificationMaterial"]["publicKey"]["hint"]
    except (ValueError, KeyError, TypeError, AttributeError):
        yield Broken(str(bundle), f"no Model Signing bundle. {again}")
        return
    if hint != fingerprint(key):
        yield Broken(str(bundle), f"signed with another key ({str(hint)[:16]}), not with {key_path} ({fingerprint(key)[:16]}). Expected the key of the publisher. Ask for it, or do not use these files")  # fmt: skip
        return
    if links := [path for path in folder.rglob("*") if path.is_symlink()]:
        yield from (Broken(str(link), f"a link, which no signature covers. {again}") for link in links)
        return
    config = hashing.Config().set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False)
    try:
        with _quiet():
            verifying.Config().use_elliptic_key_verifier(public_key=key_path).set_hashing_config(config).verify(
                folder, bundle
            )
    except InvalidSignature:
        yield Broken(str(bundle), f"the signature does not fit what it names: the bundle was changed. {again}")
        return
    except Exception as error:
        if not str(error).startswith("Signature mismatch"):
            yield Broken(str(bundle), f"{type(error).__name__} in the bundle. {again}")
            return
    # The names that the bundle has are the signer's: `verify` looks at the signature first.
    signed = {item["name"]: item["digest"] for item in payload["predicate"]["resources"]}
    config = hashing.Config().set_ignored_paths(paths=UNSIGNED, ignore_git_paths=False)
    there = {item.identifier: item.digest.digest_hex for item in config.hash(folder).resource_descriptors()}
    for name in sorted(signed.keys() | there.keys()):
        if signed.get(name) == there.get(name):
            continue
        what = "added: no signature covers it" if name not in signed else "removed" if name not in there else f"changed: signed with sha256 {signed[name]}, it has {there[name]}"  # fmt: skip
        yield Broken(f"{folder / name}", f"{what}. {again}")


def _payload(bundle: Path) -> dict[str, Any]:
    """The statement in a bundle; not yet checked against any key."""
    content = json.loads(base64.b64decode(json.loads(bundle.read_text())["dsseEnvelope"]["payload"], validate=True))
    if not isinstance(content, dict) or not isinstance(content["predicate"]["resources"], list):
        raise ValueError("no statement")
    return content
