"""The options of `dnnjpeg encode` for a target in place of a quality."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import click

from .options import (
    SPEC,
    check_single,
    device_option,
    missing,
    network_option,
    task_option,
    threads_option,
    weights_option,
)

Command = TypeVar("Command", bound=Callable[..., Any])

# fmt: off
_OPTIONS = (
    network_option("networks", multiple=True,
                   help=f"Make each file as small as --keep allows, for this network: {SPEC}. Repeat it for "
                        "each network that will read the files: other networks may read something else."),
    click.option("--keep", metavar="CRITERION",
                 help="What the networks must still read. same: the same answer, if the answer is all that "
                      "counts. accuracy=99%: as same, in at least 99 % of the pictures, if a few mistakes "
                      "are allowed. distance=0.3: the task's distance from the original is below 0.3, if "
                      "scores count. price=1e-4: minimise distance + 1e-4 x bytes, if all files share one "
                      "budget. For classifiers also top1, which is same; top5: the same five classes first; "
                      "divergence=0.3, which is distance, in nat; quality=75: the average quality, and a "
                      "higher one for pictures that are hard to read, if networks that you cannot name read "
                      "the files too."),
    click.option("--prune", is_flag=True,
                 help="Also drop the coefficients that the networks need least. This saves half of the bytes "
                      "or more, and removes most of what other networks, and people, see."),
    task_option(),
    threads_option(),
    weights_option(),
    device_option(),
    click.option("--target-bytes", metavar="N", type=click.IntRange(1),
                 help="Use the highest quality at which each file has at most N bytes."),
    click.option("--target-bpp", metavar="X", type=click.FloatRange(0, min_open=True),
                 help="Use the highest quality at which each file has at most X bits per pixel."),
)
# fmt: on


def target_options(command: Command) -> Command:
    """Add the options to a command, in their order."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def target(
    networks: tuple[str, ...],
    keep: str | None,
    prune: bool,
    task: str | None,
    threads: int | None,
    weights: Path | None,
    device: str,
    target_bytes: int | None,
    target_bpp: float | None,
) -> dict[str, Any]:
    """The arguments of `encode_to_target` that the options ask for, with loaded networks.

    They are empty without a target. Raises click.UsageError.
    """
    limits = {"target_bytes": target_bytes, "target_bpp": target_bpp}
    given = {name: value for name, value in limits.items() if value is not None}
    if not math.isfinite(target_bpp or 0):
        raise click.UsageError(f"--target-bpp is {target_bpp}, expected a finite number")
    if len(given) + bool(networks or keep) > 1:
        raise click.UsageError("--keep, --target-bytes and --target-bpp exclude each other: give one")
    if bool(networks) != bool(keep):
        raise click.UsageError("--network and --keep go together: give both or neither")
    if prune and not networks:
        raise click.UsageError("--prune needs networks: give --network and --keep")
    check_single("--weights", weights, networks)
    if not keep:
        return given
    try:
        from dnnjpeg.networks.criterion import Criterion
        from dnnjpeg.networks.load import load_network

        criterion = Criterion.parse(keep)
        if prune and not criterion.is_bound:
            raise click.UsageError(
                f"--prune needs --keep same, top1, top5, distance=X or divergence=X, and --keep {keep} is "
                "given"
            )
        loaded = [
            load_network(spec, weights=weights, device=device, task=task, threads=threads)
            for spec in dict.fromkeys(networks)
        ]
        for network in loaded:
            criterion.check(network)
            if prune:
                network.need_gradients("--prune", "leave out --prune")
    except ImportError as error:
        raise missing(error.name, "--network") from None
    except (OSError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    return {"networks": loaded, "keep": keep, "prune": prune}


def describe(target: Mapping[str, Any]) -> dict[str, Any]:
    """The target for a JSON report."""
    networks = [
        {
            "name": network.name,
            "spec": network.spec,
            "digest": network.digest,
            "task": network.task.name,
        }
        for network in target.get("networks", ())
    ]
    return {**target, "networks": networks} if networks else dict(target)
