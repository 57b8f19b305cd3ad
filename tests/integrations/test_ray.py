"""Shards on a cluster of two nodes on this machine, of which one is killed in the middle."""

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from skipping import MISSING

sys.path.append(str(Path(__file__).parents[1] / "shards"))
from shard_files import jpeg, make, options, samples, tar_bytes, tree

from dnnjpeg.shards.cluster import on_ray
from dnnjpeg.shards.run import Shards

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read by Ray at its import: it stays on 127.0.0.1
ray = pytest.importorskip("ray", reason=f"ray {MISSING}")
pytestmark = pytest.mark.filterwarnings("ignore")  # Ray's own
# A node that does not answer is given up after two seconds, not after half a minute.
QUICKLY = {
    "health_check_initial_delay_ms": 1000,
    "health_check_period_ms": 500,
    "health_check_timeout_ms": 500,
    "health_check_failure_threshold": 4,
}


@pytest.fixture
def cluster() -> Iterator[Any]:
    from ray.cluster_utils import Cluster

    node = {"node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000}
    head = {**node, "num_cpus": 1, "include_dashboard": False, "_system_config": QUICKLY}
    found = Cluster(initialize_head=True, head_node_args=head)
    worker = found.add_node(num_cpus=1, **node)
    yield found, worker
    ray.shutdown()
    found.shutdown()


def test_a_node_is_killed_in_the_middle(cluster: Any, tmp_path: Path) -> None:
    both, worker = cluster
    pictures = [jpeg(i) for i in range(20)]
    for i in range(8):
        members = [(f"{j:04}.jpg", pictures[(i + j) % 20]) for j in range(2500)]
        (tmp_path / f"{i}.tar").write_bytes(tar_bytes(members))
    (tmp_path / "8.tar").write_bytes(b"damaged")
    make(tmp_path / "*.tar", tmp_path / "expected")

    ray.init(address=both.address, log_to_driver=False)
    shards = Shards([str(tmp_path / "*.tar")], str(tmp_path / "out"), options())

    def kill_when_both_write() -> None:
        deadline = time.monotonic() + 90
        while time.monotonic() < deadline:
            if len(halves()) == 2:
                both.remove_node(worker, allow_graceful=False)
                return
            time.sleep(0.01)

    def halves() -> list[Path]:
        return list((tmp_path / "out" / "_dnnjpeg").glob(".*"))

    killer = threading.Thread(target=kill_when_both_write)
    killer.start()
    found = list(shards.run(on_ray()))
    killer.join()
    assert sorted(Path(shard.source).name for shard in found) == [f"{i}.tar" for i in range(9)]
    assert [Path(shard.source).name for shard in found if shard.status == "failed"] == ["8.tar"]
    assert halves()  # a shard that was cut short, and made elsewhere
    deadline = time.monotonic() + 60
    while sum(node["Alive"] for node in ray.nodes()) > 1:  # Ray takes its time to say so
        assert time.monotonic() < deadline
        time.sleep(0.5)
    assert {n: d for n, d in tree(tmp_path / "out").items() if n.endswith(".tar")} == tree(
        tmp_path / "expected"
    )
    assert shards.summary["encoded"] == 8 * 2500
    again = Shards([str(tmp_path / "[0-7].tar")], str(tmp_path / "out"), options())
    assert {shard.status for shard in again.run(on_ray())} == {"before"}


def test_command(cluster: Any, tmp_path: Path) -> None:
    both, _ = cluster
    for i in range(2):
        (tmp_path / f"{i}.tar").write_bytes(tar_bytes(samples(3, 3 * i)))
    make(tmp_path / "*.tar", tmp_path / "expected")
    command = [
        sys.executable, "-m", "dnnjpeg", "encode", str(tmp_path / "*.tar"), "-o", str(tmp_path / "out"),
        "--json",
        "--table", "universal", "--quality", "60", "--engine", "ray", "--address",
    ]  # fmt: skip
    done = subprocess.run([*command, both.address], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["shards"] == {"done": 2, "before": 0, "failed": 0}
    assert tree(tmp_path / "out") == tree(tmp_path / "expected")
    refused = subprocess.run([*command, both.address, "--report", "r.html"], capture_output=True, text=True)
    assert refused.returncode == 2
    assert "--report with --engine ray: not for shards" in refused.stderr


def benchmark(tmp_path: Path, script: str, *options: str) -> Any:
    """The results of a benchmark, with four pictures of each kind."""
    for kind in ("full", "flowers17"):
        pictures = tmp_path / "data" / kind
        pictures.mkdir(parents=True)
        for i in range(4):
            (pictures / f"{i}.jpg").write_bytes(jpeg(i))
    command = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / script), *options]
    own = {"DNNJPEG_DATA": str(tmp_path), "DNNJPEG_RESULTS": str(tmp_path)}
    done = subprocess.run(
        command, env=os.environ | own, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return json.loads((tmp_path / script).with_suffix(".json").read_text())


def test_the_benchmark_of_clusters(tmp_path: Path) -> None:
    result = benchmark(tmp_path, "cluster.py", "--shards", "2", "--size", "4", "--turns", "1")
    assert set(result["seconds"]) == {
        "this process, 1 job", "this process, 2 jobs", "Ray, 1 nodes", "Ray, 2 nodes",
    }  # fmt: skip
    assert result["two_nodes_by_one"] > 0


def test_the_benchmark_of_buckets(tmp_path: Path) -> None:
    """And what a shard asks a bucket for, which docs/guides/cluster.md says."""
    for module in ("moto.server", "s3fs"):
        pytest.importorskip(module, reason=f"{module} {MISSING}")
    result = benchmark(tmp_path, "bucket.py", "--sizes", "4", "--turns", "1")
    assert set(result["one_processor"]) == {"flowers17", "full", "both"}
    (row,) = result["bucket"]
    kinds = ("HEAD", "GET", "PUT", "LIST")
    found = {part: [counts.get(kind, 0) for kind in kinds] for part, counts in row["a_shard"].items()}
    assert found == {"start": [1, 0, 0, 0], "shards": [5, 1, 2, 0], "again": [3, 1, 0, 0]}
    assert row["a_shard"]["shards"]["bytes down"] == row["bytes"]
