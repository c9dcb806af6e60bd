"""Options that name a file to write."""

import tempfile
from pathlib import Path

from scalequest.errors import UserError


def check_output(option: str, path: Path | None) -> None:
    """Refuse what cannot become a file, before hours of work end there.

    Raises:
        UserError: it is a folder, below something that is none, or where this user cannot write.
    """
    if path is None:
        return
    if path.is_dir():
        raise UserError(f"{option} {path}: a folder. Expected a file to write. Name one in it.")
    above = next((folder for folder in path.absolute().parents if folder.exists()), Path("/"))
    if not above.is_dir():
        raise UserError(f"{option} {path}: {above} is no folder. Expected a file to write. Correct the path.")
    try:  # permissions do not say it: the file system may be read-only or full
        with tempfile.NamedTemporaryFile(dir=above, prefix=f".{path.name}.") as file:
            file.write(b"1")
            file.flush()
    except OSError as error:
        raise UserError(
            f"{option} {path}: cannot be written ({error.strerror}). Expected a place where files can be made. Name another one."
        ) from None
