"""Encode shards on a Ray cluster, one task a shard."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

from dnnjpeg.jobs.workers import encoders
from dnnjpeg.shards.run import Engine, Shard, ShardTask

_RETRIES = 5  # how often a task is repeated if its node or process is lost
_AHEAD = 2  # tasks in flight for each processor


def on_ray(address: str | None = None) -> Engine:
    """An engine for `Shards.run` that encodes shards on a cluster. The files are the same as on one machine.

    address: the address of the cluster. None is the cluster that this program is connected to, or the one
        that RAY_ADDRESS names, or else this machine alone.

    Each task has one processor. If a node is lost, its tasks run again elsewhere. A shard appears when it is
    complete, so nothing is lost or doubled. All nodes need dnnjpeg, the sources and the output, by URL or on
    a shared disk. Shards come in the order in which they are done.

    Raises ValueError if Ray is not installed, and ConnectionError if the cluster cannot be reached.
    """
    try:
        import ray
    except ImportError:
        raise ValueError("the engine ray needs Ray: pip install 'ray>=2.50'") from None

    def run(tasks: Sequence[ShardTask]) -> Iterator[Shard]:
        started = not ray.is_initialized()
        if started:
            ray.init(address=address, log_to_driver=False, configure_logging=False)
        try:
            yield from _spread(ray, tasks)
        finally:
            if started:
                ray.shutdown()

    return run


def _spread(ray: Any, tasks: Sequence[ShardTask]) -> Iterator[Shard]:
    do = ray.remote(num_cpus=1, max_retries=_RETRIES)(_do)
    running: dict[Any, ShardTask] = {}
    waiting = iter(tasks)
    while True:
        room = max(int(_AHEAD * ray.cluster_resources().get("CPU", 1)), 1) - len(running)
        for task in (task for _, task in zip(range(room), waiting, strict=False)):
            running[do.remote(task)] = task
        if not running:
            return
        for reference in ray.wait(list(running), num_returns=1)[0]:
            task = running.pop(reference)
            try:
                yield ray.get(reference)
            except ray.exceptions.RayError as error:
                reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                yield Shard(task.path, "failed", {}, f"its task was lost: {reason}")


def _do(task: ShardTask) -> Shard:
    task = replace(task, options=replace(task.options, jobs=1))
    with encoders(task.options.recipe, 1, 1) as pool:
        return task.do(pool)
