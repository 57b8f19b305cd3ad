"""The run of `dnnjpeg evaluate`: load what the arguments name, measure, and say where results come from."""

import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.checks import one_line
from dnnjpeg.files.provenance import command, cpu_name, short

if TYPE_CHECKING:
    from dnnjpeg.evaluate.ladder import Ladder
    from dnnjpeg.networks.measurer import Measurer

_PACKAGES = (
    "dnnjpeg",
    "torch",
    "numpy",
    "pillow",
    "xjpeg",
    "mozjpeg-lossless-optimization",
    "pyjpegli",
    "pillow-jxl-plugin",
)


def prepare(
    wanted: dict[str, set[float]],
    rate: str,
    *,
    specs: Sequence[str],
    task: str | None,
    threads: int | None,
    weights: Path | None,
    data: Path,
    labels: Path | None,
    crop: int | None,
    limit: int | None,
    seed: int,
    plan: Path | None,
    device: str,
    cache: Path | None,
) -> "tuple[Measurer, dict[str, Ladder]]":
    """Load all that the arguments name, and try each codec on one picture, so that errors come early.

    wanted: qualities by name of codec. rate: see `Ladder`. The others are the options of the command.

    Raises ValueError and OSError.
    """
    import platformdirs

    from dnnjpeg.evaluate.codecs import load_codec
    from dnnjpeg.evaluate.ladder import Ladder
    from dnnjpeg.evaluate.measure import measure
    from dnnjpeg.files.cache import Cache
    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.measurer import Measurer, by_name

    loaded = {name: load_codec(name) for name in wanted}
    networks = [
        load_network(spec, weights=weights, device=device, task=task, threads=threads)
        for spec in dict.fromkeys(specs)
    ]
    if plan:
        import torch

        from dnnjpeg.sparse.plan import Plan, apply_

        if networks[0].device.type != "cpu":
            raise ValueError(f"--plan needs the CPU, and --device is {device}: leave out one of them")
        made = Plan.load(plan)
        torch.set_num_threads(int(made.conditions.get("threads", torch.get_num_threads())))
        apply_(networks[0].module, made)
    dataset = load_dataset(data, labels, size=crop, limit=limit, seed=seed)
    for name, codec in loaded.items():
        for quality in wanted[name] or {50}:
            file = codec.encode(dataset.pictures[0], quality)
        if rate == "scan_bytes" and not file.startswith(b"\xff\xd8"):
            raise ValueError(f"{name} writes no JPEG, which --headerless needs: leave out one of them")
    kept = Cache(cache or platformdirs.user_cache_path("dnnjpeg") / "readings")
    measurer = Measurer(dataset, by_name(networks), kept)
    return measurer, {name: Ladder(codec, partial(measure, measurer), rate) for name, codec in loaded.items()}


def measure_all(
    ladders: "dict[str, Ladder]",
    wanted: dict[str, set[float]],
    references: Sequence[str],
    qualities: Sequence[float],
    scores: Mapping[str, Mapping[str, int]],
) -> None:
    """Measure all settings that the report needs, behind a progress bar. Arguments as in `climb`.

    wanted: the qualities that the user asks for, by name of codec.
    """
    from tqdm import tqdm

    from dnnjpeg.evaluate.ladder import climb

    networks = list(scores)
    with tqdm(unit=" readings", leave=False, disable=not sys.stderr.isatty()) as bar:
        for ladder in ladders.values():
            ladder.on_reading = bar.update
        for name, own in wanted.items():
            for quality in sorted(own):
                ladders[name].at(quality, networks)
        # top-1 is too coarse for the search. It is taken from the settings of the loss
        climbed = {name: {m: s for m, s in own.items() if m != "top1"} for name, own in scores.items()}
        climb(ladders, dict.fromkeys(ladders, networks), references, qualities, climbed)


def warn_of_labels(measurer: "Measurer") -> None:
    """Warn if a classifier is worse than a guess on the originals: then the labels are not its own."""
    from dnnjpeg.networks.outputs import tensors
    from dnnjpeg.networks.tasks import Classification

    for name, read in measurer.originals.items():
        if not isinstance(measurer.networks[name].task, Classification) or not read.metrics:
            continue
        guess = math.log(tensors(measurer.clean[name])[0].shape[1])
        if (loss := float(read.loss.mean())) > guess:
            text = (
                f"warning: {name} has a mean loss of {loss:.2f} on the originals, and a guess {guess:.2f}: "
            )
            click.echo(one_line(f"{text}check that the labels belong to this network"), err=True)


def provenance(measurer: "Measurer") -> dict[str, Any]:
    """The origin of an evaluation, as a JSON object: command, machine, packages, pictures, networks."""
    installed = {}
    for package in _PACKAGES:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    dataset = measurer.dataset
    return {
        "format": "dnnjpeg-evaluation",
        "version": 2,
        "command": command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": {"cpu": cpu_name(), "cores": os.cpu_count(), "system": platform.platform()},
        "packages": {"python": platform.python_version(), **installed},
        "data": {
            "source": short(dataset.source),
            "pictures": len(dataset),
            "pixels": round(dataset.pixels),
        },
        "networks": {
            name: {"spec": short(n.spec), "weights": n.digest, "task": n.task.name}
            for name, n in measurer.networks.items()
        },
    }
