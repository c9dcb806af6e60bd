"""A card's peak, and the share of it that a training reached: one formula for the page of costs and the benchmarks."""

import re
from pathlib import Path

from scalequest.params import read_yaml

TABLE = Path(__file__).with_name("gpus.yaml")
# What the table's peaks are of.
PEAK_DTYPE = "bfloat16"


def peak_tflops(card: str, dtype: str = PEAK_DTYPE) -> float | None:
    """The peak of a card in 10^12 operations per second; None where gpus.yaml has none for it.

    Args:
        card: as the driver names it, ``NVIDIA H100 80GB HBM3``; of several kinds, with commas between, none is the peak.
        dtype: precision that is computed in, as ``engine.dtype`` names it.
    """
    if dtype != PEAK_DTYPE or "," in card:
        return None
    gpus = read_yaml(TABLE)["gpus"].values()
    return next((float(gpu["peak_tflops"]) for gpu in gpus if re.search(gpu["cards"], card, re.IGNORECASE)), None)


def share_of_peak(parameters: int, tokens: float, seconds: float, tflops: float, gpus: int = 1) -> float:
    """6 · parameters · tokens / (seconds · peak): 2 operations per parameter and token forwards, 4 backwards."""
    return 6 * parameters * tokens / (seconds * gpus * tflops * 1e12)
