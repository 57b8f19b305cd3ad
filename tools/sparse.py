"""`dnnjpeg sparse`: find the fastest way to run a network's convolutions on this processor, and use it."""

import json
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.provenance import command, short

from .options import (
    SPEC,
    batch_option,
    check_folders,
    data_option,
    json_option,
    labels_option,
    limit_option,
    missing,
    network_option,
    plan_option,
    seed_option,
    weights_option,
)
from .paths import NamedPath, printable

if TYPE_CHECKING:
    from dnnjpeg.files.dataset import Dataset
    from dnnjpeg.networks.load import Network


@click.group(short_help="Run networks faster on the CPU by skipping zeros.")
def sparse() -> None:
    """Run networks on the CPU with convolutions that skip zeros, where this is faster."""


# fmt: off
@sparse.command(short_help="Find the fastest way to run each convolution.")
@network_option("spec", required=True)
@weights_option()
@data_option(help="Pictures as the network will see them. How many zeros its layers have depends on them.")
@batch_option(default=1, help="Pictures at a time.")
@click.option("--threads", type=click.IntRange(1), help="Threads of torch.  [default: torch's]")
@seed_option(help="Seed of the choice of pictures.")
@click.option("-o", "--output", metavar="FILE.json", required=True, type=NamedPath(dir_okay=False),
              help="Where to write the plan.")
@click.option("--report", "report_file", metavar="FILE.json", type=NamedPath(dir_okay=False),
              help="Where to write all measurements.")
def tune(
    spec: str,
    weights: Path | None,
    data: Path,
    batch: int,
    threads: int | None,
    seed: int,
    output: Path,
    report_file: Path | None,
) -> None:
    """Measure all methods for each convolution of a network, and write a plan with the fastest.

    The first run compiles kernels, which takes a minute or two.

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    torch = _torch()
    check_folders(output, report_file)
    if threads:
        torch.set_num_threads(threads)
    network, dataset = _load(spec, weights, data, None, batch, seed)
    from tqdm import tqdm

    from dnnjpeg.sparse import optimize_

    inputs = network.inputs(torch.from_numpy(dataset.squares[:batch]).permute(0, 3, 1, 2))
    report = optimize_(
        network.module,
        inputs,
        progress=lambda sites: tqdm(sites, unit=" layers", leave=False, disable=not sys.stderr.isatty()),
    )
    provenance = {
        "spec": spec,
        "weights": network.digest,
        "pictures": f"{short(dataset.source)}: {', '.join(dataset.names[:3])}",
        "command": command(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    try:
        replace(report.plan, provenance=provenance).save(output)
        if report_file:
            write_atomic(report_file, json.dumps(provenance | report.to_json(), indent=1).encode() + b"\n")
    except OSError as error:
        raise click.ClickException(str(error)) from None
    click.echo(printable(str(report)))


@sparse.command(short_help="Classify pictures with a plan, and compare the speed.")
@plan_option("plan_file", required=True, help="Plan, written by `dnnjpeg sparse tune`.")
@data_option()
@labels_option()
@network_option("spec", help=f"Network that the plan was made for: {SPEC}.  [required]")
@weights_option()
@limit_option()
@json_option(help="Print one JSON object.")
def run(
    plan_file: Path,
    data: Path,
    labels: Path | None,
    spec: str | None,
    weights: Path | None,
    limit: int | None,
    as_json: bool,
) -> None:
    """Classify pictures with the unchanged network and with the plan, and compare speed and classes.

    Exit status: 0 done, 1 failed, 2 wrong usage.
    """
    torch = _torch()
    from dnnjpeg.sparse import Plan

    try:
        plan = Plan.load(plan_file)
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    if not spec:
        known = repr(plan.provenance.get("spec"))  # escaped, as the terminal may take it for commands
        raise click.UsageError(
            f"--network is missing, and a plan runs no code by itself. {plan_file} was made for {known}: "
            "give this with --network if you trust it"
        )
    torch.set_num_threads(int(plan.conditions.get("threads", torch.get_num_threads())))
    network, dataset = _load(spec, weights, data, labels, limit, 0)
    found = _compare(network, dataset, plan)
    if as_json:
        click.echo(json.dumps(found))
        return
    click.echo(
        f"{found['pictures']} pictures. Pictures a second: unchanged {found['original_per_second']:.1f}, "
        f"with the plan {found['plan_per_second']:.1f} ({found['speedup']:.2f}x). "
        f"The same class: {found['same']}"
    )
    if "original_top1" in found:
        click.echo(f"top-1: unchanged {found['original_top1']:.4f}, with the plan {found['plan_top1']:.4f}")
# fmt: on


def _torch() -> ModuleType:
    try:
        return import_module("torch")
    except ModuleNotFoundError as error:
        raise missing(error.name, "sparse") from None


def _load(
    spec: str, weights: Path | None, data: Path, labels: Path | None, limit: int | None, seed: int
) -> "tuple[Network, Dataset]":
    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.networks.load import load_network

    try:
        network = load_network(spec, weights=weights)
        return network, load_dataset(data, labels, size=network.preprocess.size, limit=limit, seed=seed)
    except (ValueError, OSError) as error:
        raise click.UsageError(str(error)) from None


def _compare(network: "Network", dataset: "Dataset", plan: Any) -> dict[str, Any]:
    """Measure the unchanged network and the plan by turns, so that the load of the machine is the same."""
    import numpy as np

    from dnnjpeg.sparse.plan import apply_, install, modules_of, original

    try:
        apply_(network.module, plan)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    ways = {"original": {}, "plan": modules_of(original(network.module), plan)}
    batch = int(plan.conditions.get("batch", 1))
    seconds = dict.fromkeys(ways, 0.0)
    classes: dict[str, list[Any]] = {name: [] for name in ways}
    for start in range(0, len(dataset), batch):
        pictures = dataset.pictures[start : start + batch]
        for name, modules in ways.items():
            install(network.module, modules, plan.fused and name == "plan")
            if not start:
                network.read(pictures, batch)  # the first call prepares weights, and is not counted
            begin = time.perf_counter()
            logits = network.read(pictures, batch)
            seconds[name] += time.perf_counter() - begin
            classes[name].append(logits.argmax(axis=1))
    read = {name: np.concatenate(values) for name, values in classes.items()}
    found: dict[str, Any] = {
        "pictures": len(dataset),
        "original_per_second": len(dataset) / seconds["original"],
        "plan_per_second": len(dataset) / seconds["plan"],
        "speedup": seconds["original"] / seconds["plan"],
        "same": int((read["original"] == read["plan"]).sum()),
    }
    if dataset.labels is not None:
        for name, values in read.items():
            found[f"{name}_top1"] = float((values == dataset.labels).mean())
    return found
