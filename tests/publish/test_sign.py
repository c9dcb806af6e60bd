"""Signatures: made offline, accepted by the packages that others verify with, and broken by any change, by name."""

import argparse
import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from scalequest.audit import verify
from scalequest.audit.lock import LOCK, parse_lock, read_lock
from scalequest.errors import UserError
from scalequest.publish import command, sign
from tests.audit.pipeline import STAGES, Pipeline

pytest.importorskip("model_signing", reason="the extra `sign` is not installed: pip install 'scalequest[sign]'")


def key_pair(folder: Path, name: str, curve: Any = ec.SECP256R1) -> Path:
    """Write ``NAME`` and ``NAME.pub``, and return the first."""
    key = ec.generate_private_key(curve())
    (folder / name).write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (folder / f"{name}.pub").write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return folder / name


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys")
    key_pair(folder, "mine")
    key_pair(folder, "other")
    return folder


def publish_signed(pipeline: Pipeline, out: Path, key: Path) -> Path:
    lock = read_lock(pipeline.repository, pipeline.repository.revision("workspace"))
    command.write_hub_folder(pipeline.repository, lock, out, "Tiny run", {}, "", False, key)
    return out


@pytest.fixture(scope="module")
def made(finished_pipeline: Pipeline, keys: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return publish_signed(finished_pipeline, tmp_path_factory.mktemp("signed") / "hub", keys / "mine")


@pytest.fixture
def hub(made: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(made, tmp_path / "hub"))


def broken(hub: Path, key: Path) -> list[str]:
    return [str(link) for check in sign.verify_signatures([hub], key) for link in check.broken]


def statements(folder: Path) -> list[dict[str, Any]]:
    lines = (folder / "lineage" / "stages.intoto.jsonl").read_text().splitlines()
    return [json.loads(base64.b64decode(json.loads(line)["payload"])) for line in lines]


# ------------------------------------------------------------------------------------------------ others' verifiers


@pytest.mark.parametrize("kind", ["dataset", "model"])
def test_the_package_of_the_format_accepts_the_bundle_and_refuses_a_change(hub: Path, keys: Path, kind: str) -> None:
    from model_signing import verifying

    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub")
    verifier.verify(hub / kind, hub / kind / "model.sig")
    (hub / kind / "README.md").write_text("edited")
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub")
    with pytest.raises(ValueError, match=r"Hash mismatch for .*README\.md"):
        verifier.verify(hub / kind, hub / kind / "model.sig")


def test_in_toto_and_slsa_accept_every_statement(hub: Path, keys: Path) -> None:
    from cryptography.hazmat.primitives.serialization import load_pem_public_key
    from google.protobuf import json_format
    from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
    from in_toto_attestation.v1 import statement_pb2
    from in_toto_attestation.v1.statement import Statement
    from securesystemslib.dsse import Envelope
    from securesystemslib.signer import SSlibKey

    public = SSlibKey.from_crypto(load_pem_public_key((keys / "mine.pub").read_bytes()))
    other = SSlibKey.from_crypto(load_pem_public_key((keys / "other.pub").read_bytes()))
    lines = (hub / "model" / "lineage" / "stages.intoto.jsonl").read_text().splitlines()
    assert len(lines) == len(STAGES) + 1  # each stage, and the publication
    for line in lines:
        envelope = Envelope.from_dict(json.loads(line))
        assert envelope.verify([public], 1)
        with pytest.raises(Exception, match=r"threshold|verif"):
            envelope.verify([other], 1)
        found = json_format.Parse(envelope.payload, statement_pb2.Statement())
        Statement.copy_from_pb(found).validate()
        json_format.ParseDict(json.loads(envelope.payload)["predicate"], provenance_pb2.Provenance())


def test_a_statement_has_command_parameters_inputs_and_outputs_by_hash(hub: Path, finished_pipeline: Pipeline) -> None:
    found = {
        one["predicate"]["buildDefinition"]["externalParameters"]["stage"]: one for one in statements(hub / "model")
    }
    assert found.keys() == STAGES.keys() | {"publish"}
    tuned = found["instruct_tune"]
    assert {item["name"]: item["digest"] for item in tuned["subject"]}["models/student/model.safetensors"] == {
        "md5": finished_pipeline.md5("models/student/model.safetensors")
    }
    given = tuned["predicate"]["buildDefinition"]
    assert given["externalParameters"]["command"].startswith("python -m stages.instruct_tune --out models/student")
    assert given["externalParameters"]["parameters"] == {"seed": 17, "instruct_tune.epochs": 1, "instruct_tune.learning_rate": 3e-05}  # fmt: skip
    inputs = {item["name"]: item["digest"] for item in given["resolvedDependencies"]}
    assert inputs["data/instruct.parquet"] == {"md5": finished_pipeline.md5("data/instruct.parquet")}
    assert inputs["code"] == {"gitCommit": finished_pipeline.git("rev-parse", "HEAD")}
    files = {item["name"] for item in found["publish"]["subject"]}
    assert {"README.md", "bom.cdx.json", "model.safetensors", "lineage/dvc.lock"} <= files


# ------------------------------------------------------------------------------------------------------- every change


def test_what_was_signed_holds_and_the_lock_is_the_runs(hub: Path, keys: Path, finished_pipeline: Pipeline) -> None:
    assert broken(hub, keys / "mine.pub") == []
    assert [check.links for check in sign.verify_signatures([hub], keys / "mine.pub")] == [
        sum(path.is_file() for path in (hub / kind).rglob("*")) for kind in ("dataset", "model")
    ]
    stages = parse_lock((hub / "model" / "lineage" / LOCK).read_bytes(), LOCK)
    assert stages["instruct_tune"].outs[0].md5 == finished_pipeline.md5("models/student")


def edited(path: str) -> Callable[[Path], object]:
    return lambda hub: (hub / path).write_bytes((hub / path).read_bytes() + b" ")


def payload_edited(hub: Path) -> None:
    bundle = json.loads((hub / "model" / "model.sig").read_text())
    envelope = bundle["dsseEnvelope"]
    envelope["payload"] = base64.b64encode(base64.b64decode(envelope["payload"]).replace(b"config", b"konfig")).decode()
    (hub / "model" / "model.sig").write_text(json.dumps(bundle))


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (edited("model/model.safetensors"), "model/model.safetensors: changed: signed with sha256"),
        (edited("dataset/data/train.parquet"), "dataset/data/train.parquet: changed"),
        (edited("dataset/lineage/dvc.lock"), "dataset/lineage/dvc.lock: changed"),
        (edited("model/lineage/stages.intoto.jsonl"), "model/lineage/stages.intoto.jsonl: changed"),
        (lambda hub: (hub / "model" / "config.json").unlink(), "model/config.json: removed"),
        (lambda hub: (hub / "model" / "modeling.py").write_text(""), "model/modeling.py: added: no signature covers it"),
        (lambda hub: (hub / "model" / ".gitignore").write_text(""), "model/.gitignore: added"),
        (lambda hub: (hub / "dataset" / "data" / "x").symlink_to("/etc/hostname"), "dataset/data/x: a link"),
        (lambda hub: (hub / "model" / "model.sig").unlink(), "hub/model: no model.sig, so it is not signed"),
        (lambda hub: (hub / "model" / "model.sig").write_text("{}"), "model/model.sig: no Model Signing bundle"),
        (lambda hub: (hub / "model" / "model.sig").write_bytes(b"\xff"), "model/model.sig: no Model Signing bundle"),
        (payload_edited, "model/model.sig: the signature does not fit what it names"),
    ],
)  # fmt: skip
def test_every_change_is_refused_by_name(hub: Path, keys: Path, change: Callable[[Path], object], named: str) -> None:
    change(hub)
    [found] = broken(hub, keys / "mine.pub")
    assert named in found
    assert "Expected" in found


def test_all_changes_are_named_at_once(hub: Path, keys: Path) -> None:
    (hub / "model" / "config.json").unlink()
    edited("model/README.md")(hub)
    assert [line.split(": ")[1].split(".")[0] for line in broken(hub, keys / "mine.pub")] == ["changed", "removed"]


def test_another_key_is_refused_in_both_folders(hub: Path, keys: Path) -> None:
    found = broken(hub, keys / "other.pub")
    assert len(found) == 2
    assert all("signed with another key" in line for line in found)


def test_data_of_one_run_beside_the_model_of_another_are_refused(
    hub: Path, keys: Path, pipeline: Pipeline, tmp_path: Path
) -> None:
    pipeline.params["instruct_tune"]["epochs"] = 2
    pipeline.lock("instruct_tune")
    pipeline.commit()
    other = publish_signed(pipeline, tmp_path / "other", keys / "mine")
    assert broken(other, keys / "mine.pub") == []
    shutil.rmtree(hub / "model")
    shutil.copytree(other / "model", hub / "model")
    assert "their locks are of different runs" in broken(hub, keys / "mine.pub")[0]


def test_what_the_hub_and_its_client_add_is_no_change(hub: Path, keys: Path) -> None:
    from model_signing import verifying

    (hub / "model" / ".gitattributes").write_text("*.safetensors filter=lfs")
    (hub / "model" / ".cache" / "huggingface").mkdir(parents=True)
    (hub / "model" / ".cache" / "huggingface" / "x.metadata").write_text("")
    assert broken(hub, keys / "mine.pub") == []
    verifier = verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub")
    verifier.verify(hub / "model", hub / "model" / "model.sig")


def test_the_command_needs_no_repository_and_returns_1_at_a_change(
    hub: Path, keys: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(hub.parent)  # no Git here
    parser = argparse.ArgumentParser()
    verify.configure(parser)
    key = str(keys / "mine.pub")
    assert verify.run(parser.parse_args(["--key", key])) == 0
    assert "signature of hub/dataset" in capsys.readouterr().out
    edited("model/README.md")(hub)
    assert verify.run(parser.parse_args(["--key", key, "hub/model"])) == 1
    assert "hub/model/README.md: changed" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"nowhere: no such folder"):
        verify.run(parser.parse_args(["--key", key, "nowhere"]))
    with pytest.raises(UserError, match=r"no --rev, --replay and --seed"):
        verify.run(parser.parse_args(["--key", key, "--replay", "1%"]))


# --------------------------------------------------------------------------------------------------- keys and secrets


def test_no_key_and_no_folder_of_this_machine_is_in_what_is_signed(made: Path, keys: Path) -> None:
    secret = "".join((keys / "mine").read_text().splitlines()[1:-1])
    for path in made.rglob("*"):
        if not path.is_file():
            continue
        text = path.read_bytes().decode(errors="replace")
        texts = [text, *(json.dumps(one) for one in statements(path.parent.parent))] if path.suffix == ".jsonl" else [text]  # fmt: skip
        for one in texts:
            assert secret[:40] not in one
            assert "/models/s" not in one.replace("models/student", "").replace("models/solver", "").replace("models/sums", "")  # fmt: skip
            assert str(keys) not in one
    assert "models.student: path:s" in (made / "model" / "lineage" / LOCK).read_text()


@pytest.mark.parametrize("curve", [ec.SECP384R1, ec.SECP521R1])
def test_the_other_curves_sign_as_well(curve: Any, hub: Path, tmp_path: Path) -> None:
    path = key_pair(tmp_path, "key", curve)
    for kind in ("dataset", "model"):
        sign.sign_folder(hub / kind, statements(hub / kind), path, sign.private_key(path, hub))
    assert broken(hub, tmp_path / "key.pub") == []


def rsa_key(folder: Path) -> bytes:
    return rsa.generate_private_key(65537, 1024).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def locked_key(folder: Path) -> bytes:
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"word"))  # fmt: skip


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (rsa_key, "a private key of the kind RSAPrivateKey. Expected a PEM file with an elliptic curve key"),
        (locked_key, "this key has a password"),
        (lambda folder: (folder / "mine.pub").read_bytes(), "no private key"),
        (lambda folder: b"correct horse battery", "no private key"),
        (None, "No such file or directory"),
    ],
)
def test_what_cannot_sign_is_named_before_anything_is_written(
    pipeline: Pipeline, tmp_path: Path, keys: Path, content: Callable[[Path], bytes] | None, says: str
) -> None:
    if content:
        (tmp_path / "key").write_bytes(content(keys))
    with pytest.raises(UserError, match=r"--sign .*key: ") as found:
        publish_signed(pipeline, tmp_path / "hub", tmp_path / "key")
    assert says in str(found.value)
    assert "horse" not in str(found.value)
    assert not (tmp_path / "hub").exists()


def test_a_key_in_the_published_folder_is_refused(pipeline: Pipeline, tmp_path: Path) -> None:
    (tmp_path / "hub").mkdir()
    key = key_pair(tmp_path / "hub", "key")
    with pytest.raises(UserError, match=r"this key is in .*hub, which is published"):
        publish_signed(pipeline, tmp_path / "hub", key)


def test_a_private_key_is_refused_for_checking(hub: Path, keys: Path) -> None:
    with pytest.raises(UserError, match=r"a private key. Expected its public half") as found:
        broken(hub, keys / "mine")
    assert "PRIVATE" not in str(found.value)
    with pytest.raises(UserError, match=r"no public key. Expected a PEM file"):
        broken(hub, hub / "model" / "config.json")


def test_without_the_package_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "model_signing", None)
    with pytest.raises(UserError, match=r"model_signing is not installed. Expected the extra `sign`. Run: pip install"):
        sign.require_package()
