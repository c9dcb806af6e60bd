"""The items of a benchmark for lm-eval's own command line: `lm_eval --include_path eval/tasks --tasks NAME`."""

import importlib


def items(benchmark, **_):
    # By name: no stage uses this file, so none depends on what it imports.
    return importlib.import_module("scalequest.run.evaluate").lm_eval_items(benchmark)
