"""Remove the near duplicates of benchmarks/screen_data.py's questions with other tools, for `screen.py others`.

    python benchmarks/screen_others.py datasketch /tmp/screen       # or text-dedup, or datatrove

Writes FOLDER/others/TOOL.json: CPU seconds of all processes, peak memory of the largest one, and the ids removed. Each
tool has the same settings: runs of 3 words, 128 permutations in 16 bands of 8. datasketch only proposes pairs here, and
their exact Jaccard similarity decides. The two pipelines remove what shares a band.
Run it in an environment of its own with the tool, this repository on PYTHONPATH.
"""

import argparse
import json
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from scalequest.problems.shingles import SHINGLE, jaccard, shingles

THRESHOLD = 0.85
BANDS, ROWS = 16, 8


def read_texts(folder: Path) -> dict[str, str]:
    """Question by id, in order."""
    found: dict[str, str] = {}
    for generator in ("school", "competition"):
        for part in sorted((folder / "questions" / generator).glob("*.parquet")):
            data = pq.read_table(part, columns=["id", "question"])
            found.update(zip(data["id"].to_pylist(), data["question"].to_pylist(), strict=True))
    return found


def datasketch(texts: dict[str, str], work: Path) -> Sequence[str]:
    """MinHash LSH proposes pairs, exact Jaccard similarity decides; the first of a group stays."""
    from datasketch import MinHash, MinHashLSH

    index = MinHashLSH(threshold=THRESHOLD, num_perm=BANDS * ROWS, params=(BANDS, ROWS))
    kept: dict[str, set[str]] = {}
    removed = []
    for name, text in texts.items():
        own = shingles(text)
        sketch = MinHash(num_perm=BANDS * ROWS, seed=1)
        sketch.update_batch([shingle.encode() for shingle in own])
        if any(jaccard(own, kept[other]) >= THRESHOLD for other in index.query(sketch)):
            removed.append(name)
        else:
            kept[name] = own
            index.insert(name, sketch, check_duplication=False)
    return removed


def text_dedup(texts: dict[str, str], work: Path) -> Sequence[str]:
    """The package's own MinHash command, in one process."""
    pq.write_table(pa.table({"id": list(texts), "text": list(texts.values())}), work / "texts.parquet")
    options = {
        "path": "parquet", "data_files": work / "texts.parquet", "split": "train", "column": "text", "num_proc": 1,
        "cache_dir": work / "cache", "output": work / "out", "ngram": SHINGLE, "num_perm": BANDS * ROWS, "b": BANDS,
        "r": ROWS, "threshold": THRESHOLD, "min_length": 1,
    }  # fmt: skip
    command = [sys.executable, "-m", "text_dedup.minhash", *(f"--{name}={value}" for name, value in options.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    import datasets

    return sorted(set(texts) - set(datasets.load_from_disk(str(work / "out"))["id"]))


def datatrove(texts: dict[str, str], work: Path) -> Sequence[str]:
    """Its four MinHash steps, one after another on one worker."""
    from datatrove.executor import LocalPipelineExecutor
    from datatrove.pipeline.dedup import MinhashDedupCluster, MinhashDedupFilter, MinhashDedupSignature
    from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupBuckets
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.pipeline.writers import JsonlWriter
    from datatrove.utils.text import TextNormConfig

    (work / "in").mkdir(parents=True)
    with (work / "in" / "texts.jsonl").open("w") as out:
        out.writelines(json.dumps({"id": name, "text": text}) + "\n" for name, text in texts.items())
    # By default, numbers are all the same to it, and signs nothing: a template would be one question.
    norm = TextNormConfig(norm_numbers=False, remove_punctuation=False)
    config = MinhashConfig(norm_config=norm, n_grams=SHINGLE, num_buckets=BANDS, hashes_per_bucket=ROWS)
    steps = [str(work / name) for name in ("signatures", "buckets", "removed", "out")]
    pipelines = [
        (1, [JsonlReader(str(work / "in")), MinhashDedupSignature(steps[0], config=config)]),
        (BANDS, [MinhashDedupBuckets(steps[0], steps[1], config=config)]),
        (1, [MinhashDedupCluster(steps[1], steps[2], config=config)]),
        (1, [JsonlReader(str(work / "in")), MinhashDedupFilter(steps[2]), JsonlWriter(steps[3], compression=None)]),
    ]
    for at, (tasks, pipeline) in enumerate(pipelines):
        LocalPipelineExecutor(pipeline, tasks=tasks, workers=1, logging_dir=str(work / f"log{at}")).run()
    kept = {json.loads(line)["id"] for path in Path(steps[3]).iterdir() for line in path.open()}
    return sorted(set(texts) - kept)


def main() -> None:
    """Run one tool."""
    tools = {"datasketch": datasketch, "text-dedup": text_dedup, "datatrove": datatrove}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tool", choices=tools)
    parser.add_argument("folder", type=Path)
    args = parser.parse_args()
    texts = read_texts(args.folder)
    work = args.folder / "others" / args.tool
    work.mkdir(parents=True)
    before = cpu_s()
    started = time.perf_counter()
    removed = tools[args.tool](texts, work)
    found = {
        "cpu_s": round(cpu_s() - before, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "peak_gib": round(max(resource.getrusage(who).ru_maxrss for who in WHO) / 2**20, 2),
        "removed": list(removed),
    }
    work.with_suffix(".json").write_text(json.dumps(found))


WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)


def cpu_s() -> float:
    """CPU seconds of this process and those that it has waited for."""
    return sum(usage.ru_utime + usage.ru_stime for usage in map(resource.getrusage, WHO))


if __name__ == "__main__":
    main()
