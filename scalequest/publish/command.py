"""Write the data set and the model with their cards, in the layout of the Hugging Face hub.

    scalequest publish [--rev REV] [--out hub] [--licence NAME=ID ...]
    scalequest publish --dataset ORG/NAME --model ORG/NAME       # also upload; needs HF_TOKEN or `hf auth login`
    scalequest publish --sign KEY                                # also sign; `scalequest verify --key KEY.pub` checks it

The run is verified first: every row has its origin, all counts add up, and the revision's commit
makes the same bytes again. Addresses in the cards hold no password and no path of this machine.
"""

import argparse
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from scalequest.audit.chain import Chain
from scalequest.audit.facts import chain_facts
from scalequest.audit.history import History
from scalequest.audit.links import verify
from scalequest.audit.lock import PARAMS, Artifact, Lock, flatten, parse_yaml, read_lock
from scalequest.audit.repository import WORKSPACE, Repository, nearest
from scalequest.audit.tables import Store, Tables, read_metrics
from scalequest.errors import UserError
from scalequest.io import write_json, write_text
from scalequest.publish.bom import bill
from scalequest.publish.cards import Facts, dataset_card, model_card
from scalequest.publish.croissant import croissant
from scalequest.publish.dataset import write_configs
from scalequest.publish.public import not_repeatable, public_address, secrets
from scalequest.publish.scores import write_eval_results
from scalequest.publish.sign import SIGNATURE, private_key, require_package, sign_folder, write_lock
from scalequest.publish.sources import LICENCE_ID, find_sources
from scalequest.publish.statements import publication_statement, stage_statements
from scalequest.redaction import keep_secret

# The name that CycloneDX recommends.
BILL = "bom.cdx.json"
# The folders that are written.
PARTS = ("dataset", "model")
# The published student and its training rows, by the stages that make them.
MODEL_STAGE, DATA_STAGE, LEDGER_STAGE = "instruct_tune", "reward_select", "filter"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--rev", default=WORKSPACE, help="branch, tag, commit or experiment; the workspace by default")
    parser.add_argument("--out", type=Path, default=Path("hub"), help="the folder to write (default: hub)")
    parser.add_argument("--name", default="ScaleQuest run", help="title of both cards")
    parser.add_argument("--licence", action="append", default=[], metavar="NAME=ID", help="licence of a model role or a seed source, as in gsm8k=mit")  # fmt: skip
    parser.add_argument("--dataset", metavar="ORG/NAME", help="upload the data set there")
    parser.add_argument("--model", metavar="ORG/NAME", help="upload the model there")
    parser.add_argument("--public", action="store_true", help="make the uploads public; they are private by default")
    parser.add_argument(
        "--sign",
        type=Path,
        metavar="KEY",
        help="sign both folders with this private key (PEM, elliptic curve, no password)",
    )
    parser.add_argument(
        "--uncommitted", action="store_true", help="also publish what no commit reproduces; the cards then say so"
    )


def run(args: argparse.Namespace) -> int:
    """Verify, write, push."""
    if args.public and not (args.dataset or args.model):
        raise UserError(
            "--public: nothing is uploaded. Expected it with --dataset ORG/NAME or --model ORG/NAME. Name one, or leave "
            "--public out."
        )
    repository = Repository.find()
    lock = read_lock(repository, repository.revision(args.rev))
    given = dict(_licence(item) for item in args.licence)
    token = _token() if args.dataset or args.model else None
    write_hub_folder(repository, lock, args.out, args.name, given, args.dataset or "", args.uncommitted, args.sign)
    print(f"written: {args.out / 'dataset'} and {args.out / 'model'}")
    if args.sign:
        print(f"signed: {SIGNATURE} in both; scalequest verify --key PUBLIC_KEY {args.out}")
    for kind, name in (("dataset", args.dataset), ("model", args.model)):
        if name:
            print(f"pushed: {push(args.out / kind, name, kind, token, private=not args.public)}")
    return 0


def _licence(item: str) -> tuple[str, str]:
    name, mark, value = item.partition("=")
    if not (mark and name and value):
        raise UserError(f"--licence {item}: expected NAME=ID, as in gsm8k=mit (ids: https://hf.co/docs/hub/repositories-licenses)")  # fmt: skip
    if not LICENCE_ID.fullmatch(value):
        raise UserError(f"--licence {name}: {value!r} is no id. Expected one as in gsm8k=mit (ids: https://hf.co/docs/hub/repositories-licenses)")  # fmt: skip
    return name, value


def _token() -> str:
    from huggingface_hub import get_token

    token = get_token()
    if not token:
        raise UserError("publish: pushing needs a token of the Hugging Face hub; set HF_TOKEN, or run: hf auth login")
    return token


def write_hub_folder(
    repository: Repository,
    lock: Lock,
    out: Path,
    name: str,
    licences: dict[str, str],
    dataset: str,
    anyway: bool = False,
    sign: Path | None = None,
) -> None:
    """Write ``out/dataset`` and ``out/model``, files and cards. They replace those of an earlier call when they are complete.

    Args:
        repository: that ``lock`` is of.
        lock: the records of what is published.
        out: the folder to write.
        name: title of both cards.
        licences: of model roles and seed sources, where they state none.
        dataset: the data set's name on the hub, or empty.
        anyway: also publish what the revision's commit does not make again; the cards then say so.
        sign: file of the private key to sign with; None leaves both folders unsigned.

    Raises:
        UserError: a link is broken, a stage has not run, the data are not here, ``licences`` names what is no source, the
            commit does not make these bytes, a file holds a secret, ``sign`` holds no key, or another's folder is in the way.
    """
    check_free(out)
    if sign:
        require_package()
    key = private_key(sign, out) if sign else None
    broken = [link for check in verify(repository, lock, ["counts", "rows"]) for link in check.broken]
    if broken:
        raise UserError(
            f"publish: {lock.revision}: {len(broken)} broken links. Expected none. `scalequest verify` lists them; the first:\n"
            f"  {broken[0]}"
        )
    reasons = not_repeatable(repository, lock)
    if reasons and not anyway:
        raise UserError(refusal("publish", lock, reasons) + ", or publish it marked as not repeatable: --uncommitted")
    store, history = Store(repository), History(repository)
    model = _output(lock, MODEL_STAGE, "out")
    data, _ = _output(lock, DATA_STAGE, "out"), _output(lock, LEDGER_STAGE, "ledger")
    files, tables = store.files(model, lock.revision), Tables(lock, store)
    facts = {
        artifact: gather(Chain(repository, history, lock, artifact.path), tables, name, licences, reasons)
        for artifact in (data, model)
    }
    known = [source.name for source in facts[model].sources]  # a superset of the data set's
    if unknown := sorted(licences.keys() - set(known)):
        raise UserError(f"--licence {unknown[0]}: no such source{nearest(unknown[0], known)}")
    out.mkdir(parents=True, exist_ok=True)
    # Beside what an earlier call has written, which stays unless the new files are complete.
    with tempfile.TemporaryDirectory(prefix=".publish-", dir=out) as beside:
        new = Path(beside)
        configs = write_configs(tables, new / "dataset")
        for path, file in files.items():
            _copy(file, new / "model" / path)
        write_text(new / "dataset" / "README.md", dataset_card(facts[data], configs))
        write_json(new / "dataset" / "croissant.json", croissant(facts[data], new / "dataset", configs, dataset))
        write_json(new / "dataset" / BILL, bill(facts[data]))
        write_text(new / "model" / "README.md", model_card(facts[model], dataset))
        write_json(new / "model" / BILL, bill(facts[model]))
        write_eval_results(facts[model], new / "model")
        if sign:
            for part in PARTS:
                write_lock(repository, lock, new / part)
        if found := list(secrets(new, key_variable(repository, lock))):
            raise UserError(
                f"publish: {found[0].removeprefix(f'{new}/')}. Expected files without secrets; nothing was kept. Remove it where "
                "it comes from"
            )
        if sign:
            origin = facts[data].origin
            stages = list(stage_statements(repository, history, lock, origin))
            for part in PARTS:
                last = publication_statement(repository, lock, new / part, origin)
                sign_folder(new / part, [*stages, last], sign, key)
        for part in PARTS:
            if (out / part).exists():
                (out / part).rename(new / f"old-{part}")
            (new / part).rename(out / part)


def check_free(out: Path) -> None:
    """Refuse to replace what this command has not written.

    Raises:
        UserError: a file or folder has the name of one to be written, and no bill of materials.
    """
    for path in (out / part for part in PARTS):
        empty = not path.exists() or (path.is_dir() and not any(path.iterdir()))
        if not (empty or (path / BILL).is_file()):
            raise UserError(
                f"--out {out}: {path} is there, and was not written by `scalequest publish` (it has no {BILL}). Expected no such "
                "folder, or one to replace. Move it, or name another folder."
            )


def key_variable(repository: Repository, lock: Lock) -> str:
    """Name of the environment variable that holds the endpoint's key; empty where the parameters name none.

    Those of single roles are kept as secrets, too.
    """
    params = flatten(parse_yaml(repository.read(lock.revision, PARAMS) or b"{}", PARAMS))
    for name, value in params.items():
        if name.startswith("runtime.api.by_role.") and name.endswith(".key_variable"):
            keep_secret(str(value))
    return str(params.get("runtime.api.key_variable", ""))


def refusal(command: str, lock: Lock, reasons: list[str]) -> str:
    """Why a command does not take a run that its commit does not make again, and what to do."""
    more = f"\n  ... and {len(reasons) - 3} more" if len(reasons) > 3 else ""
    listed = "".join(f"\n  {reason}" for reason in reasons[:3]) + more
    return (
        f"{command}: the commit of {lock.revision} does not make what its dvc.lock names:{listed}\nExpected a committed run "
        "whose parameters and code are those of its lock. Commit first: git add -u && git commit"
    )


def _copy(source: Path, target: Path) -> None:
    """A copy and no link: who edits the folder must not reach DVC's cache."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)


def _output(lock: Lock, stage: str, option: str) -> Artifact:
    # Of several students the one named `student` is published; a lock of an earlier revision has one without a name.
    found = lock.stages.get(f"{stage}@student", lock.stages.get(stage))
    artifact = found.out(found.option(option) or "") if found else None
    if artifact is None:
        raise UserError(f"publish: {lock.revision} has no finished stage {stage}; run: dvc repro {stage}")
    return artifact


def gather(chain: Chain, tables: Tables, name: str, licences: dict[str, str], reasons: Sequence[str] = ()) -> Facts:
    """Everything that the cards say about one output."""
    lock, repository = chain.lock, chain.repository
    metrics: dict[str, dict[str, Any]] = {}
    for stage in lock.stages.values():
        for out in stage.outs:
            if out.path.endswith(".json") and (values := read_metrics(repository, lock.revision, out)):
                metrics[stage.name] = values
    params = {key: value for stage in chain.stages for key, value in stage.params.items()}
    sources = list(find_sources(chain, tables.store, licences))
    scores = {
        stage.option("scores") or "": metrics.get(stage.name, {}) for stage in lock.stages.values() if stage.base in ("evaluate", "evaluate_student")
    }  # fmt: skip
    revision = lock.revision
    commit = revision.commit or repository.head or ""
    # `remote get-url` and not the setting: it knows of `insteadOf`.
    origin = public_address(repository.git("remote", "get-url", "origin", check=False).decode())
    return Facts(
        name=name,
        chain=chain_facts(chain, tables),
        revision=f"{revision.name} {commit}" if revision.commit != revision.name else commit,
        origin=origin,
        not_repeatable=reasons,
        experiment=revision.experiment,
        date=repository.git("show", "-s", "--format=%cI", commit).decode().strip() if commit else "",
        sources=sources,
        metrics=metrics,
        params=params,
        hashes={out.path: out.md5 for stage in (f"{MODEL_STAGE}@student", MODEL_STAGE, DATA_STAGE, LEDGER_STAGE) if stage in lock.stages for out in lock.stages[stage].outs},
        scores={Path(path).stem: {task: v for task, v in values.items() if isinstance(v, dict) and "n" in v} for path, values in scores.items()},
    )  # fmt: skip


def push(folder: Path, name: str, kind: str, token: str | None, private: bool) -> str:
    """Upload a folder to the hub, making the repository if it is not there; returns its address."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError

    api = HfApi(token=token)
    try:
        api.create_repo(name, repo_type=kind, private=private, exist_ok=True)
        return str(
            api.upload_folder(repo_id=name, repo_type=kind, folder_path=folder, commit_message="scalequest publish")
        )
    except (HfHubHTTPError, OSError) as error:
        raise UserError(
            f"publish: the hub did not take {kind} {name}: {error}; {folder} is ready and can be pushed again"
        ) from None
