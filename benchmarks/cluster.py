"""Shards on Ray: two nodes beside one, and Ray beside this process alone.

    python benchmarks/cluster.py

The shards are those of benchmarks/shards.py. Each node has one processor of this machine. Runs take turns.
Speeds are ratios of the medians' seconds; starting a cluster is not counted.
"""

import os
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"  # read by Ray at its import: it stays on 127.0.0.1

import click
import ray
from common import write
from ray.cluster_utils import Cluster
from shards import jpeg_files, lay_out

from dnnjpeg import load_table
from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.shards.cluster import on_ray
from dnnjpeg.shards.run import Engine, ShardOptions, Shards, here


@contextmanager
def nodes(count: int) -> Iterator[Engine]:
    """An engine on a cluster of so many nodes. Its workers have loaded the kernels."""
    node = {"node_ip_address": "127.0.0.1", "object_store_memory": 100_000_000, "num_cpus": 1}
    cluster = Cluster(initialize_head=True, head_node_args={**node, "include_dashboard": False})
    try:
        for _ in range(count - 1):
            cluster.add_node(**node)
        cluster.wait_for_nodes()
        ray.init(address=cluster.address, log_to_driver=False)
        yield on_ray()
    finally:
        ray.shutdown()
        cluster.shutdown()


def seconds(engine: Engine, folder: Path, shards: str, jobs: int = 1) -> float:
    with tempfile.TemporaryDirectory(dir=folder) as out:
        options = ShardOptions(FileOptions(load_table("universal"), 75), jobs=jobs)
        start = time.perf_counter()
        done = [one.status for one in Shards([str(folder / "shards" / shards)], out, options).run(engine)]
        if set(done) != {"done"}:
            raise RuntimeError(f"shards are {done}, expected all done")
        return time.perf_counter() - start


@click.command()
@click.option("--shards", default=8, show_default=True)
@click.option("--size", default=500, show_default=True, help="Pictures a shard.")
@click.option("--turns", default=3, show_default=True)
def main(shards: int, size: int, turns: int) -> None:
    warnings.simplefilter("ignore")
    files = jpeg_files()
    took: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        folder = Path(name)
        lay_out(folder, [files[i % len(files)] for i in range(shards * size)], size)
        for _ in range(turns):
            for kind, jobs in (("this process, 1 job", 1), ("this process, 2 jobs", 2)):
                took.setdefault(kind, []).append(seconds(here, folder, "*.tar", jobs))
            for count in (1, 2):
                with nodes(count) as engine:
                    seconds(engine, folder, "00000[01].tar")
                    took.setdefault(f"Ray, {count} nodes", []).append(seconds(engine, folder, "*.tar"))
            for kind, several in took.items():
                click.echo(f"{kind}: {shards * size / median(several):.0f} pictures a second")
    middle = {kind: median(several) for kind, several in took.items()}
    one, two = middle["Ray, 1 nodes"], middle["Ray, 2 nodes"]
    result: dict[str, Any] = {
        "shards": shards,
        "pictures_a_shard": size,
        "seconds": {kind: [round(x, 2) for x in several] for kind, several in took.items()},
        "two_nodes_by_one": round(one / two, 3),
        "overhead_of_ray": {
            "1 processor": round(one / middle["this process, 1 job"] - 1, 3),
            "2 processors": round(two / middle["this process, 2 jobs"] - 1, 3),
        },
    }
    write("cluster", result)
    click.echo(f"two nodes: {one / two:.2f}x one; Ray takes {result['overhead_of_ray']} longer")


if __name__ == "__main__":
    main()
