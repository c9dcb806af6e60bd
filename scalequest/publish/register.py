"""Register a model in MLflow, with the hashes that lead back to the audit.

    scalequest register models/student --name scalequest-student [--rev REV]

The tags of the version hold the hash of the model, the hash of every input of the stage that trained it, the commit and
the revision. Its run is the one that trained it, if MLflow has that run.
"""

import argparse
import json
from typing import Any

from scalequest.audit.chain import Chain
from scalequest.audit.history import History
from scalequest.audit.lock import read_lock
from scalequest.audit.repository import WORKSPACE, Repository
from scalequest.audit.tables import Store
from scalequest.errors import UserError


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("path", help="the folder of a model that a stage writes")
    parser.add_argument("--name", help="name of the registered model (default: its path with dashes)")
    parser.add_argument("--rev", default=WORKSPACE, help="branch, tag, commit or experiment; the workspace by default")
    parser.add_argument("--uri", help="MLflow's store (default: runtime.mlflow_uri, else mlflow.db in the repository)")


def run(args: argparse.Namespace) -> int:
    """Register, say under which version."""
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
    """Make a version of the registered model ``name`` and return its number.

    Raises:
        UserError: the target is no model folder, or its bytes are not here.
    """
    if "config.json" not in store.files(chain.target, chain.lock.revision):
        raise UserError(f"register: {chain.target.path} holds no config.json, so it is no model; expected the folder that a training stage writes")  # fmt: skip
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
    source = (chain.repository.root / chain.target.path).as_uri()
    made = client.create_model_version(name, source, run_id=run.info.run_id if run else None, tags=tags(chain))
    return str(made.version)


def _training_run(client: Any, chain: Chain) -> Any:
    """The run of the stage that made just these bytes; None where MLflow has none (it was off, or another machine's)."""
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`dvc.outs` LIKE '%{chain.target.md5}%'")
    return found[0] if found else None
