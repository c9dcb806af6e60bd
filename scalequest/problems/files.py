"""Rows of files from outside: JSONL (also .gz), a JSON list, Parquet. A file made to fill the memory is refused by name."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from scalequest.errors import UserError
from scalequest.io import MAX_LINE, MAX_RATIO, MAX_UNPACKED, numbered_jsonl, read_json

# Largest JSON list, which is read whole and takes about ten times its size in memory.
MAX_JSON = 512 << 20
# Rows of Parquet that are unpacked at once.
BATCH = 64


def read_file(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield each row of a JSONL (also .gz), JSON or Parquet file, and its place in the file (line or row), for messages.

    Raises:
        UserError: there is no such file, it holds something else, or more than a file of problems can hold.
    """
    rows: Iterable[tuple[int, dict[str, Any]]]
    if path.suffix == ".parquet" and path.is_file():
        rows = enumerate(_parquet(path), start=1)
    elif path.suffix == ".json" and path.is_file():
        rows = enumerate(_json_list(path), start=1)
    else:
        rows = numbered_jsonl(path)
    for number, row in rows:
        yield f"{path}:{number}", row


def _json_list(path: Path) -> list[dict[str, Any]]:
    if (size := path.stat().st_size) > MAX_JSON:
        raise UserError(
            f"{path}: {size:,} bytes. Expected at most {MAX_JSON:,} for a JSON list, which is read whole. "
            "Write it as .jsonl, one object per line."
        )
    rows = read_json(path)
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise UserError(f"{path}: not a list of JSON objects; expected one, or one object per line in a .jsonl file")
    return rows


def _parquet(path: Path) -> Iterator[dict[str, Any]]:
    """Rows in small batches: a column may say one long text a million times in a few bytes."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    size, unpacked = path.stat().st_size, 0
    most = max(MAX_UNPACKED, MAX_RATIO * size)
    try:
        with pq.ParquetFile(path) as file:
            groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
            chunks = [group.column(i) for group in groups for i in range(group.num_columns)]
            _refuse_beyond(path, size, sum(chunk.total_uncompressed_size for chunk in chunks), most)
            for batch in file.iter_batches(batch_size=BATCH, use_threads=False):
                unpacked += batch.nbytes
                _refuse_beyond(path, size, unpacked, most)
                if batch.nbytes > BATCH * MAX_LINE:
                    raise UserError(
                        f"{path}: rows of more than {MAX_LINE:,} bytes. Expected problems. Look at the file."
                    )
                yield from batch.to_pylist()
    except (pa.ArrowException, OSError, ValueError, OverflowError) as error:
        raise UserError(f"{path}: not a Parquet file ({error}). Expected one. Download it again.") from None


def _refuse_beyond(path: Path, size: int, unpacked: int, most: int) -> None:
    if unpacked > most:
        raise UserError(
            f"{path}: its {size:,} bytes unpack to {unpacked:,} or more. Expected at most {most:,}. Look at the file, or write "
            "the rows that you need as .jsonl."
        )
