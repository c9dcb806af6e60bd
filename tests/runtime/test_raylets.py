"""Ray over several nodes: two raylets on this machine, one of which is killed with its actor in the middle of a stage."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# The driver is on a node of its own without CPUs. An actor takes one CPU, so each node has room for both.
RUN = """
import os, sys
from pathlib import Path
import pyarrow as pa
from ray.cluster_utils import Cluster
from scalequest.records import write_table
from scalequest.run.profile import load_profile
from scalequest.runtime.workers import work_here, work_on_ray

# A dead node is found in seconds, which takes a minute by default.
QUICK = {"health_check_period_ms": 1000, "health_check_timeout_ms": 3000, "health_check_failure_threshold": 3}
out, notes, cpus = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
schema = pa.schema([("shard", pa.int64()), ("value", pa.int64())])
shards = [(number, 1000 * number, list(range(50))) for number in range(8)]

driver = os.getpid()

def start():
    import os, random, time
    def work(items, seed, number):
        if os.getpid() != driver:
            import ray
            (notes / f"{number}-{ray.get_runtime_context().get_node_id()}-{os.getpid()}").touch()
            time.sleep(0.5)
        draw = random.Random(seed)
        return [{"shard": number, "value": draw.randrange(10**9) + item} for item in items], 1
    return work

def save(path, tables):
    write_table(path, pa.concat_tables(tables[number] for number in sorted(tables)))

if __name__ == "__main__":
    save(out / "here.parquet", {n: rows for n, rows, _ in work_here(start, shards, schema)})
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False, "_system_config": QUICK})
    nodes = [cluster.add_node(num_cpus=cpus) for _ in range(2)]
    cluster.wait_for_nodes()
    runtime = load_profile().runtime.model_copy(update={"engine": "ray", "workers": 2, "ray_address": cluster.address})
    tables, killed = {}, False
    for number, rows, _ in work_on_ray(start, shards, schema, runtime, {}):
        tables[number] = rows
        if not killed:
            killed = True
            # The node of an actor that is at a shard now.
            newest = max(notes.iterdir(), key=lambda path: path.stat().st_mtime).name.split("-")[1]
            cluster.remove_node(next(node for node in nodes if node.node_id == newest), allow_graceful=False)
    save(out / "cluster.parquet", tables)
    cluster.shutdown()
    print("DONE, killed after 1 of 8")
"""


@pytest.mark.slow
def test_a_killed_raylet_costs_no_byte(tmp_path: Path):
    notes = tmp_path / "notes"
    notes.mkdir()
    (tmp_path / "run.py").write_text(RUN)
    result = subprocess.run(
        [sys.executable, str(tmp_path / "run.py"), str(tmp_path), str(notes), "2"], cwd=ROOT, capture_output=True,
        text=True, check=False, timeout=200,
    )  # fmt: skip
    assert "DONE, killed after 1 of 8" in result.stdout, result.stderr[-3000:]
    assert (tmp_path / "cluster.parquet").read_bytes() == (tmp_path / "here.parquet").read_bytes()
    shards, nodes = zip(*(path.name.split("-")[:2] for path in notes.iterdir()), strict=True)
    assert set(shards) == set("01234567")
    assert len(set(nodes)) == 2, "the node that was killed had worked"
