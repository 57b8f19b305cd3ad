"""Shards in a bucket, made by Ray: requests, bytes, memory by size of shard. And speed by size of picture.

    python benchmarks/bucket.py

The bucket is a server of moto on this machine, which counts the requests. Ray has one processor. The pictures
are the JPEG files of full/ (about 500x375) of $DNNJPEG_DATA/data, and for the speed also those of flowers17
(144x144). Requests of one shard: those of three shards less those of one, divided by two.
"""

import logging
import os
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import click
from cluster import nodes, ray  # first: Ray reads its environment there
from common import write
from PIL import Image
from shards import jpeg_files, lay_out

from dnnjpeg import load_table
from dnnjpeg.jobs.tasks import FileOptions
from dnnjpeg.jobs.workers import encoders
from dnnjpeg.shards.run import Engine, ShardOptions, Shards, ShardTask
from dnnjpeg.shards.storage import STATE

OPTIONS = ShardOptions(FileOptions(load_table("universal"), 75))


class Counting:
    """A web application that counts the requests to another one, by kind."""

    def __init__(self, app: Any) -> None:
        self._app = app
        self.counts: Counter[str] = Counter()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        method, path, query = (environ[name] for name in ("REQUEST_METHOD", "PATH_INFO", "QUERY_STRING"))
        self.counts["LIST" if "list-type" in query else method] += 1
        if method in ("PUT", "POST"):
            self.counts["bytes up"] += int(environ.get("CONTENT_LENGTH") or 0)

        def answer(status: str, headers: list[tuple[str, str]], *rest: Any) -> Any:
            if method == "GET" and path.endswith(".tar"):
                self.counts["bytes down"] += int(dict(headers).get("Content-Length", 0))
            return start(status, headers, *rest)

        return self._app(environ, answer)

    def since(self, before: Counter[str]) -> Counter[str]:
        found = self.counts.copy()
        found.subtract(before)
        return found


@contextmanager
def bucket() -> Iterator[tuple[Counting, Any]]:
    """A server, and its file system with an empty bucket. Processes that begin inside use it, too."""
    import s3fs
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    counting = Counting(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, counting, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "none",
        "AWS_SECRET_ACCESS_KEY": "none",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_port}",
    }
    try:
        fs = s3fs.S3FileSystem()
        fs.mkdir("bucket")
        yield counting, fs
    finally:
        server.shutdown()
        thread.join()


def requests(counting: Counting, engine: Engine, size: int) -> dict[str, Any]:
    """Of one shard, by the part of a run: before the first shard, all shards, and all of it once more."""
    found: dict[str, list[Counter[str]]] = {"start": [], "shards": [], "again": []}
    for last in (0, 2):
        pattern = f"s3://bucket/in{size}/{{000000..{last:06}}}.tar"
        output = f"s3://bucket/out{size}-{last}"
        for again in (False, True):
            before = counting.counts.copy()
            shards = Shards([pattern], output, OPTIONS)
            started = counting.counts.copy()
            statuses = {one.status for one in shards.run(engine)}
            if statuses != {"before" if again else "done"}:
                raise RuntimeError(f"shards are {statuses}")
            if again:
                found["again"].append(counting.since(before))
            else:
                found["start"].append(started - before)
                found["shards"].append(counting.since(started))
    return {part: {k: round((three[k] - one[k]) / 2) for k in three} for part, (one, three) in found.items()}


def peak(task: ShardTask) -> int:
    """Megabytes of the process that makes a shard, at its largest."""
    with encoders(OPTIONS.recipe, 1, 1) as pool:
        task.do(pool)
    status = Path("/proc/self/status").read_text()
    return round(int(status.partition("VmHWM:")[2].split()[0]) * 1024 / 1e6)


def in_bucket(files: Sequence[Path], sizes: Sequence[int]) -> list[dict[str, Any]]:
    rows = []
    with tempfile.TemporaryDirectory(dir="/dev/shm") as name, bucket() as (counting, fs):
        for size in sizes:
            lay_out(Path(name), [files[i % len(files)] for i in range(size)], size)
            (shard,) = (Path(name) / "shards").iterdir()
            for i in range(3):
                fs.put_file(str(shard), f"bucket/in{size}/{i:06}.tar")
            with nodes(1) as engine:
                found = requests(counting, engine, size)
                task = ShardTask(f"s3://bucket/in{size}/000000.tar", "s3://bucket/memory", OPTIONS, {})
                megabytes = ray.get(ray.remote(num_cpus=1)(peak).remote(task))
            rows.append(
                {"pictures": size, "bytes": shard.stat().st_size, "peak_mb": megabytes, "a_shard": found}
            )
            click.echo(rows[-1])
    return rows


def speed(files: Sequence[Path], turns: int) -> dict[str, Any]:
    """All files as one shard, from memory to memory, by seconds of a processor."""
    size = len(files)
    pixels = [image.width * image.height for image in map(Image.open, files)]
    took = []
    with (
        tempfile.TemporaryDirectory(dir="/dev/shm") as name,
        encoders(OPTIONS.recipe, 1, 1) as pool,
    ):
        folder = Path(name)
        lay_out(folder, list(files), size)
        (folder / STATE).mkdir()
        task = ShardTask(str(folder / "shards" / "000000.tar"), str(folder), OPTIONS, {})
        done = task.do(pool)
        for _ in range(turns):
            start = time.process_time()
            done = task.do(pool)
            took.append(time.process_time() - start)
    if done.status != "done":
        raise RuntimeError(done.reason)
    return {
        "pictures": size,
        "mean_bytes": round(done.record["bytes_before"] / size),
        "mean_bytes_after": round(done.record["bytes_after"] / size),
        "mean_pixels": round(sum(pixels) / size),
        "processor_seconds": [round(x, 3) for x in took],
        "pictures_per_second": round(size / median(took), 1),
    }


@click.command()
@click.option("--sizes", default="500,1000,2000", show_default=True, help="Pictures a shard.")
@click.option("--turns", default=7, show_default=True)
def main(sizes: str, turns: int) -> None:
    files = jpeg_files()
    small = [path for path in files if "flowers17" in path.parts]
    large = [path for path in files if "full" in path.parts]
    kinds = {"flowers17": small, "full": large, "both": files}
    speeds = {kind: speed(some, turns) for kind, some in kinds.items() if some}
    click.echo(speeds)
    write("bucket", {"one_processor": speeds, "bucket": in_bucket(large, [int(x) for x in sizes.split(",")])})


if __name__ == "__main__":
    main()
