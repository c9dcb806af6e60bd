"""Print the source line of a hub model, pinned to the commit that its main branch is at.

scalequest pin Qwen/Qwen2-Math-7B                  # hf:Qwen/Qwen2-Math-7B@COMMIT, for `models` in params.yaml
scalequest pin openai/gsm8k --dataset              # the commit of a data set, for `commit` of a hub source
"""

import argparse

from scalequest.models.hub import hub_errors


def configure(parser: argparse.ArgumentParser) -> None:
    """Declare the options of ``scalequest pin``."""
    parser.add_argument("repo", metavar="ORG/NAME", help="a repository of the hub")
    parser.add_argument("--revision", default="main", help="branch or tag (default: main)")
    parser.add_argument("--dataset", action="store_true", help="the repository is a data set; print its commit")


def run(args: argparse.Namespace) -> int:
    """Print the pinned source line."""
    from huggingface_hub import HfApi

    repo = args.repo.removeprefix("hf:").split("@")[0]
    with hub_errors("ROLE", repo, args.revision):
        if args.dataset:
            print(HfApi().dataset_info(repo, revision=args.revision).sha)
        else:
            print(f"hf:{repo}@{HfApi().model_info(repo, revision=args.revision).sha}")
    return 0
