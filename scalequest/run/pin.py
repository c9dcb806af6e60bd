"""Print the commit that a hub repository's main branch is at."""

import argparse
import sys

from scalequest.errors import UserError
from scalequest.models.hub import told


def main(argv: list[str] | None = None) -> None:
    """Print the pinned source line of a repository."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("repo", help="ORG/NAME")
    parser.add_argument("--revision", default="main", help="branch or tag (default: main)")
    args = parser.parse_args(argv)
    from huggingface_hub import HfApi

    try:
        with told("ROLE", args.repo, args.revision):
            print(f"hf:{args.repo}@{HfApi().model_info(args.repo, revision=args.revision).sha}")
    except UserError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
