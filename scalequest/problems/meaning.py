"""What texts mean as vectors of 256 numbers: sums of static word vectors, and the numbers that a text names.

The word vectors are those of `wordllama` (MIT), which its wheel holds: token embeddings of Llama 2, Phi 3 and other
models, trained to give similar sentences similar sums. Only its two data files are read. Importing the package would
change the root logger.

All sums are sums of whole numbers, so the vectors are the same on every machine and in every batch.
"""

from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from numba import njit
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from scalequest.errors import UserError

Vectors = NDArray[np.int8]

DIMENSIONS = 256
# Characters of a text that are read for its meaning: a megabyte takes no longer than a page.
MOST_CHARACTERS = 10_000
# Distinct words whose pieces are remembered. Numbers have no end, so the table is emptied when it is full.
MOST_REMEMBERED = 200_000
# Steps per unit of the word vectors, which go from -8 to 8; a step is smaller than what their 16 bits resolve.
_STEPS = 1024


@cache
def _model() -> tuple[Tokenizer, NDArray[np.int16]]:
    spec = find_spec("wordllama")
    if spec is None or spec.origin is None:
        raise UserError(
            "the word vectors of the package wordllama are not here. Expected the package, whose files are read. Run `make setup`, "
            "or install wordllama with pip"
        )
    folder = Path(spec.origin).parent
    tokenizer = Tokenizer.from_file(str(folder / "tokenizers" / "l2_supercat_tokenizer_config.json"))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    weights = load_file(folder / "weights" / "l2_supercat_256.safetensors")["embedding.weight"]
    return tokenizer, np.rint(weights.astype(np.float32) * _STEPS).astype(np.int16)


_pieces: dict[str, list[int]] = {}


def word_sums(
    texts: Sequence[str], turns: NDArray[np.int64] | None = None, ends: NDArray[np.int64] | None = None
) -> NDArray[np.int32]:
    """The sums of the word vectors of N texts in lower case, in steps (N, 256).

    The tokenizer takes each word apart by itself, so its pieces are remembered by word.

    Args:
        texts: the texts, or the parts of all texts one after another.
        turns: by how many places each part's vector is rotated; 0 without.
        ends: text i has the parts ``ends[i]:ends[i + 1]`` (N + 1); without, a text is one part.
    """
    tokenizer, table = _model()
    split = [text.split() for text in texts]
    if new := list({word for own in split for word in own if word not in _pieces}):
        if len(_pieces) > MOST_REMEMBERED:
            _pieces.clear()
            new = list({word for own in split for word in own})
        found = tokenizer.encode_batch_fast(new, add_special_tokens=False)
        _pieces.update(zip(new, (encoding.ids for encoding in found), strict=True))
    flat: list[int] = []
    stops = np.zeros(len(texts) + 1, np.int64)
    for at, own in enumerate(split, start=1):
        for word in own:
            flat += _pieces[word]
        stops[at] = len(flat)
    turns = np.zeros(len(texts), np.int64) if turns is None else turns
    ends = np.arange(len(texts) + 1) if ends is None else ends
    sums = np.zeros((len(ends) - 1, DIMENSIONS), np.int32)
    _add_up(table, np.array(flat, np.int32), stops, turns, ends, sums)
    return sums


@njit(cache=True)
def _add_up(table, tokens, stops, turns, ends, sums):
    for row in range(len(sums)):
        for part in range(ends[row], ends[row + 1]):
            turn = turns[part]
            kept = table.shape[1] - turn
            for at in range(stops[part], stops[part + 1]):
                vector = table[tokens[at]]
                for k in range(kept):
                    sums[row, turn + k] += vector[k]
                for k in range(turn):
                    sums[row, k] += vector[kept + k]


def directions(sums: NDArray[np.int32]) -> Vectors:
    """Each of N vectors scaled to a length of about 127; 0 stays 0 (N, 256)."""
    lengths = np.sqrt(np.einsum("nk,nk->n", sums, sums, dtype=np.int64))
    lengths[lengths == 0] = 1
    return np.rint(sums * (127 / lengths)[:, None]).astype(np.int8)


def lengths(vectors: Vectors) -> NDArray[np.float64]:
    """Length of each vector, at least 1 (N)."""
    wide = vectors.astype(np.int32)
    return np.maximum(1, np.sqrt(np.einsum("nk,nk->n", wide, wide)))


def meanings(texts: Sequence[str]) -> Vectors:
    """The direction of the word sum of each of N texts in lower case (N, 256)."""
    return directions(word_sums([text[:MOST_CHARACTERS] for text in texts]))
