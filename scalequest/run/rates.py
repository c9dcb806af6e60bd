"""Hours of a GPU from a stage's tokens and rows, by the measured rates of ``gpus.yaml``."""

import math
from typing import Any

from scalequest.run.work import Work


def generated_rate(rows: list[list[float]], billions: float) -> float:
    """Generated tokens per second: the rate of the nearest measured size; above the largest, slower in proportion."""
    return nearest_row(rows, billions)[1] * min(1.0, max(row[0] for row in rows) / billions)


def nearest_row(rows: list[list[float]], billions: float) -> list[float]:
    """The row of the nearest measured size, on a logarithmic scale."""
    return min(rows, key=lambda row: abs(math.log(row[0] / billions)))


def measured_rates(gpu: dict[str, Any], work: Work) -> list[list[float]]:
    """A GPU's rows of sizes and rates for this precision and length; where fp8 was not measured, those of bfloat16."""
    return rows_in_8_bits(gpu, work) or of_length(gpu["generated_tokens_per_s"], work)


def rows_in_8_bits(gpu: dict[str, Any], work: Work) -> list[list[float]]:
    """A GPU's rows of fp8; none where the work is not in fp8, or the size nearest to the model's was not measured in it."""
    if not work.fp8 or work.billions is None or "generated_tokens_per_s_fp8" not in gpu:
        return []
    nearest, _ = nearest_row(of_length(gpu["generated_tokens_per_s"], work), work.billions)
    rows = of_length(gpu["generated_tokens_per_s_fp8"], work)
    return rows if nearest in [size for size, _ in rows] else []


def of_length(rates: list[list[float]] | dict[str, list[list[float]]], work: Work) -> list[list[float]]:
    """The rows of sizes and rates of this length, or of all lengths."""
    return rates if isinstance(rates, list) else rates[work.length or "response"]


def trained_share(table: dict[str, Any], billions: float) -> float:
    """Share of the peak that training reaches: one number, or that of the nearest measured size."""
    shares = table["trained_share_of_peak"]
    return float(nearest_row(shares, billions)[1] if isinstance(shares, list) else shares)


def hours(work: Work, gpu: dict[str, Any], table: dict[str, Any]) -> float:
    """Hours of one GPU per stage; for reading and training the slower of arithmetic and cost per sequence."""
    if work.billions is None:
        return 0.0
    operations_per_s = gpu["peak_tflops"] * 1e12
    parameters = work.billions * 1e9
    seconds = work.engines * gpu["engine_start_s"] + work.trainings * table["training_start_s"]
    if work.generated:
        seconds += work.generated / generated_rate(measured_rates(gpu, work), work.billions)
    if work.length is None:
        reading = 2 * parameters * work.read / (operations_per_s * gpu["read_share_of_peak"])
        seconds += max(reading, work.sequences / table["max_read_sequences_per_s"])
    arithmetic = 6 * parameters * work.trained / (operations_per_s * trained_share(table, work.billions))
    most = None if work.packed else table["max_trained_samples_per_s"]
    return (seconds + max(arithmetic, work.samples / most if most else 0.0)) / 3600
