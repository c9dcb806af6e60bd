"""Register a model in MLflow, with the hashes that lead back to the audit.

    scalequest register models/student --name scalequest-student [--rev REV]

The version is a read-only copy in ``mlartifacts/registered``, which
``mlflow.transformers.load_model("models:/NAME/VERSION")`` loads. The tags of the version hold the
hash of the model, the hash of every input of the stage that trained it, the commit and the
revision. Its run is the one that trained it, if MLflow has that run. A run that is not committed is
refused.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from scalequest.audit.chain import Chain
from scalequest.audit.history import History
from scalequest.audit.lock import read_lock
from scalequest.audit.repository import WORKSPACE, Repository
from scalequest.audit.tables import Store, hash_file
from scalequest.errors import UserError
from scalequest.io import read_json
from scalequest.publish.command import refusal
from scalequest.publish.public import not_repeatable

# Below the repository's root; Git and DVC ignore it.
COPIES = Path("mlartifacts", "registered")


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", help="the folder of a model that a stage writes")
    parser.add_argument("--name", help="name of the registered model (default: its path with dashes)")
    parser.add_argument("--rev", default=WORKSPACE, help="branch, tag, commit or experiment; the workspace by default")
    parser.add_argument("--uri", help="MLflow's store (default: runtime.mlflow_uri, else mlflow.db in the repository)")


def run(args: argparse.Namespace) -> int:
    """Register, and print the version."""
    repository = Repository.find()
    chain = Chain(repository, History(repository), read_lock(repository, repository.revision(args.rev)), args.path)
    uri = args.uri or store_uri(repository)
    name = args.name or chain.target.path.replace("/", "-")
    version = register(chain, Store(repository), uri, name)
    print(f"registered: {name} version {version} in {uri}")
    return 0


def store_uri(repository: Repository) -> str:
    """Where the pipeline's runs are."""
    from scalequest.params import load_all
    from scalequest.runtime.tracking import tracking_uri

    return tracking_uri(load_all(repository.root / "params.yaml"), repository.root)


def tags(chain: Chain) -> dict[str, str]:
    """What a registered version carries."""
    code = chain.code(chain.stage)
    inputs = {item.artifact.path: item.artifact.md5 for item in chain.inputs(chain.stage)}
    return {
        "dvc.path": chain.target.path,
        "dvc.md5": chain.target.md5,
        "dvc.stage": chain.stage.name,
        "dvc.inputs": json.dumps(inputs),
        "revision": str(chain.lock.revision),
        "git.commit": code.commit or "dirty",
        "audit": f"scalequest audit {chain.target.md5}",
    }


def register(chain: Chain, store: Store, uri: str, name: str) -> str:
    """Make a version of the registered model ``name`` from a copy that no later run changes, and return its number.

    Raises:
        UserError: the run is not committed, the target is no model folder, or its bytes are not here.
    """
    files = store.files(chain.target, chain.lock.revision)
    if "config.json" not in files:
        raise UserError(f"register: {chain.target.path} holds no config.json, so it is no model; expected the folder that a training stage writes")  # fmt: skip
    if reasons := not_repeatable(chain.repository, chain.lock):
        raise UserError(refusal("register", chain.lock, reasons))
    copy = frozen_copy(chain.repository.root / COPIES, chain.target.md5, files, store.listing(chain.target) or {})
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

    client = MlflowClient(uri)
    try:
        client.get_registered_model(name)
    except MlflowException:
        client.create_registered_model(
            name, description="A model of the ScaleQuest pipeline; its tags lead to its audit."
        )
    run = _training_run(client, chain)
    made = client.create_model_version(
        name, copy.resolve().as_uri(), run_id=run.info.run_id if run else None, tags=tags(chain)
    )
    _link_version(client, run, name, str(made.version))
    return str(made.version)


def _link_version(client: Any, run: Any, name: str, version: str) -> None:
    """Name the version on the LoggedModel that the training run made, as ``mlflow.register_model`` does."""
    from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS

    for output in run.outputs.model_outputs if run and run.outputs else ():
        before = json.loads(client.get_logged_model(output.model_id).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
        versions = [*before, {"name": name, "version": version}]
        client.set_logged_model_tags(output.model_id, {MLFLOW_MODEL_VERSIONS: json.dumps(versions)})


def frozen_copy(folder: Path, md5: str, files: dict[str, Path], hashes: dict[str, str]) -> Path:
    """A read-only copy of a model under ``folder``, by its hash, with what MLflow needs to load it.

    The folder of the stage is no address for a version: the next run writes another model there.

    Args:
        folder: where copies are kept.
        md5: of the model.
        files: its files, by their path relative to it.
        hashes: md5 of each file, as far as DVC's cache lists them.

    Raises:
        UserError: a file's bytes are not those of its hash.
    """
    target = folder / md5.removesuffix(".dir")
    if target.is_dir():
        return target
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as temporary:
        copy = Path(temporary) / "copy"
        for name, source in files.items():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy / name)
            if name in hashes and hash_file(copy / name) != hashes[name]:
                raise UserError(
                    f"register: {source}: its bytes are not those of {hashes[name]}. Run: scalequest verify hashes"
                )
        made = _as_mlflow_model(copy, Path(temporary) / "model") if "tokenizer_config.json" in files else copy
        for path in made.rglob("*"):
            if path.is_file():
                path.chmod(0o444)
        made.rename(target)
    return target


def _as_mlflow_model(model: Path, out: Path) -> Path:
    """Write the model as ``mlflow.transformers.load_model`` takes it."""
    import mlflow

    heads = read_json(model / "config.json").get("architectures") or [""]
    task = "text-classification" if "SequenceClassification" in heads[0] else "text-generation"
    mlflow.transformers.save_model(
        transformers_model=str(model), path=str(out), task=task, pip_requirements=["torch", "transformers"]
    )
    return out


def _training_run(client: Any, chain: Chain) -> Any:
    """The run of the stage that made just these bytes; None where MLflow has none (it was off, or another machine's)."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`dvc.outs` LIKE '%{chain.target.md5}%'")
    return found[0] if found else None
