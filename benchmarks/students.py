"""Compare students item by item: means over training seeds with their standard errors, and paired differences.

    python benchmarks/students.py reports/results/gpu-1.5b/more/marks.csv

The file has a row per test item (``task``, ``item``, ``split``) and a column ``NAME_SEED`` per student, 1 where its answer
is right. An item counts once, with the mean of a name's seeds, so the standard errors are those of items. A difference is
of the second name less the first, on the same items.
"""

import argparse
import csv
import itertools
from collections import defaultdict
from pathlib import Path

from scalequest.statistics import Difference, mean_error, paired_difference

# Task and split, name of the students, right answers of each item as a share of the seeds.
Shares = dict[tuple[str, str], dict[str, list[float]]]


def read_shares(path: Path) -> Shares:
    """The file's items, in its order."""
    found: Shares = defaultdict(lambda: defaultdict(list))
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            group = found[row.pop("task"), row.pop("split")]
            row.pop("item")
            for name, columns in itertools.groupby(row, key=lambda column: column.rpartition("_")[0]):
                marks = [int(row[column]) for column in columns]
                group[name].append(sum(marks) / len(marks))
    return found


def mean(values: list[float]) -> tuple[float, float]:
    """Mean and its standard error, in percent."""
    return 100 * sum(values) / len(values), 100 * mean_error(values)


def in_words(found: Difference) -> str:
    """A difference in points, with its standard error, interval and p value."""
    return (
        f"{100 * found.value:+.1f} ± {100 * found.standard_error:.1f}, 95 % {100 * found.low:+.1f} to "
        f"{100 * found.high:+.1f}, p {found.p_value:.1g}"
    )


def main() -> None:
    """Print both tables for each task and split."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("marks", type=Path, help="CSV file")
    for (task, split), names in read_shares(parser.parse_args().marks).items():
        print(f"{task}, {split}: {len(next(iter(names.values())))} items")
        for name, values in names.items():
            print("  {}: {:.1f} ± {:.1f} %".format(name, *mean(values)))
        for first, second in itertools.combinations(names, 2):
            print(f"  {first} -> {second}: {in_words(paired_difference(names[first], names[second]))}")


if __name__ == "__main__":
    main()
