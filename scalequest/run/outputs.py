"""Options that name a file to write."""

from pathlib import Path

from scalequest.errors import UserError


def check_output(option: str, path: Path | None) -> None:
    """Refuse what cannot become a file, before hours of work end there.

    Raises:
        UserError: it is a folder, or below something that is none.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{option} {path}: a folder. Expected a file to write. Name one in it.")
    above = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder. Expected a file to write. Correct the path.")
