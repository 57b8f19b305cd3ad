"""JPEG-DL from scratch: the same trainings with and without a trainable JPEG layer, and with controls.

    python benchmarks/jpegdl.py run --work DIR     trains whatever is missing in DIR; may be interrupted
    python benchmarks/jpegdl.py robust --work DIR  attacks the trained networks
    python benchmarks/jpegdl.py collect --work DIR writes results/jpegdl.json, and prints the tables
    python benchmarks/jpegdl.py show               prints the tables

Longer trainings, `run --epochs 120`, have a folder and a file of results of their own, `--name jpegdl_120`.

Needs DNNJPEG_DATA, with data/cifar10, data/flowers17 and models/zoo.py. A tenth of the training pictures
chooses the epoch; test pictures are read once, at the end. The protocol was fixed before any was read, but
for the arm with integer steps, as real files of the first networks had shown the need of it, and the epoch
that is kept: it was the best, until one of the best came out bad, and is the last within a standard error.
"""

import json
import os
import re
import statistics
from contextlib import suppress
from dataclasses import asdict, replace
from itertools import product
from math import isnan
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from attacked import BOUNDS, attack_job
from common import RESULTS, write
from trainings import (
    ARMS,
    MAIN,
    NETWORKS,
    PUBLISHED,
    Job,
    check_epochs,
    jobs,
    recipe_of,
    right,
    run_job,
)

from dnnjpeg.evaluate.statistics import Estimate, crossed_means
from dnnjpeg.files.atomic import write_atomic

ATTACKED = *MAIN, "JPEG-DL", PUBLISHED, "JPEG-DL, close bounds"


def gains(work: Path, done: list[Job]) -> list[dict[str, Any]]:
    """What each arm gains over the trainings without a layer, of the same network and seed, in points: by
    data set and, of several networks, by network. The interval is of other seeds, which networks share, and
    other test pictures; it is None where there is one seed.
    """
    paired = [(job, other) for job in done if (other := replace(job, arm="without")) in done]
    groups = []
    for dataset, arm in product(NETWORKS, list(ARMS)[1:]):
        pairs = [pair for pair in paired if (pair[0].dataset, pair[0].arm) == (dataset, arm)]
        titles = sorted({job.title for job, _ in pairs})
        groups.append((dataset, arm, pairs))
        if len(titles) > 1:
            groups += [(title, arm, [pair for pair in pairs if pair[0].title == title]) for title in titles]
    found = []
    for name, arm, pairs in groups:
        if not pairs:
            continue
        by_seed: dict[int, list[np.ndarray]] = {}
        for job, other in pairs:
            difference = 100.0 * right(job, work) - 100.0 * right(other, work)
            by_seed.setdefault(job.seed, []).append(difference)
        by_pair = [float(one.mean()) for seed in by_seed.values() for one in seed]
        estimate = Estimate.of(crossed_means([np.mean(seed, axis=0) for seed in by_seed.values()]))
        found.append(
            {
                "of": name,
                "arm": arm,
                "pairs": len(pairs),
                "seeds": len(by_seed),
                **{key: None if isnan(value) else round(value, 2) for key, value in asdict(estimate).items()},
                "deviation": round(statistics.stdev(by_pair), 2) if len(pairs) > 1 else None,
            }
        )
    return found


@click.group()
def main() -> None:
    """Train, attack, collect."""


WORK = click.option(
    "--work", required=True, type=click.Path(file_okay=False, path_type=Path), help="What is kept."
)
NAME = click.option("--name", default="jpegdl", show_default=True, help="Of the file of results.")


@main.command()
@WORK
@click.option("--epochs", type=click.IntRange(1), help="In place of the recipes'.")
@click.option("--seeds", type=click.IntRange(1), default=3, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--only", default="", help="Jobs whose name holds this, a regular expression.")
def run(work: Path, epochs: int | None, seeds: int, threads: int, only: str) -> None:
    """Train what is missing. Several processes may share the work."""
    torch.set_num_threads(threads)
    work.mkdir(parents=True, exist_ok=True)
    wanted = {job: recipe_of(job, epochs) for job in jobs(seeds) if re.search(only, job.name)}
    for job, recipe in wanted.items():
        check_epochs(work / f"{job.name}.json", recipe.epochs)
    for job, recipe in wanted.items():
        claim = work / f"{job.name}.claim"
        record = work / f"{job.name}.json"
        if record.exists() or not _claim(claim):
            continue
        try:
            if not record.exists():  # since a moment ago
                run_job(job, work, recipe)
                click.echo(f"{job.name}: {json.loads(record.read_text())['test']}")
        finally:
            claim.unlink()


def _claim(path: Path) -> bool:
    """Whether no living process has it."""
    try:
        with path.open("x") as file:
            file.write(str(os.getpid()))
        return True
    except FileExistsError:
        with suppress(ProcessLookupError):
            with suppress(FileNotFoundError):  # where it has just been given up
                os.kill(int(path.read_text() or os.getpid()), 0)  # empty where it has just been made
            return False
    path.write_text(str(os.getpid()))
    return True


@main.command()
@WORK
@click.option("--pictures", type=click.IntRange(1), default=200, show_default=True)
@click.option("--seeds", type=click.IntRange(1), default=1, show_default=True)
@click.option("--threads", type=click.IntRange(1), default=1, show_default=True)
@click.option("--only", default="", help="Jobs whose name holds this, a regular expression.")
def robust(work: Path, pictures: int, seeds: int, threads: int, only: str) -> None:
    """Attack the networks without a layer, and behind the soft layer, the hard one, and real files."""
    torch.set_num_threads(threads)
    for job in (job for job in jobs(seeds) if job.arm in ATTACKED):
        file = work / f"{job.name}.robust.json"
        if re.search(only, job.name) and (work / f"{job.name}.json").exists() and not file.exists():
            found = attack_job(job, work, pictures)
            write_atomic(file, json.dumps(found).encode() + b"\n")
            click.echo(f"{job.name}: {found}")


@main.command()
@WORK
@NAME
def collect(work: Path, name: str) -> None:
    """Write the results, and print the tables of the site."""
    done = [job for job in jobs(9) if (work / f"{job.name}.json").exists()]
    records = [json.loads((work / f"{job.name}.json").read_text()) for job in done]
    robustness: dict[str, list[dict[str, Any]]] = {}
    for job in done:
        if (file := work / f"{job.name}.robust.json").exists():
            for form, accuracies in json.loads(file.read_text()).items():
                what = f"{job.title}, {job.arm}{form and f': {form}'}"
                robustness.setdefault(what, []).append(accuracies)
    runs = [{key: value for key, value in record.items() if key != "log"} for record in records]
    found = {"runs": runs, "gains, points": gains(work, done), "robust, by bound of 255": robustness}
    write(name, {"arms": ARMS, **found})
    click.echo(tables(json.loads((RESULTS / f"{name}.json").read_text())))


@main.command()
@NAME
def show(name: str) -> None:
    """Print the tables of the site."""
    click.echo(tables(json.loads((RESULTS / f"{name}.json").read_text())))


def tables(results: dict[str, Any]) -> str:
    """Accuracies as mean, standard deviation and count of seeds, by form; then those under attack."""
    forms = ("soft", "hard", "integer steps", "real")
    lines = [
        "| test top-1, % | soft layer, or none | hard | integer steps | real files |",
        "|---|---:|---:|---:|---:|",
    ]
    rows: dict[Job, list[dict[str, Any]]] = {}
    for run_ in results["runs"]:
        rows.setdefault(Job(run_["dataset"], run_["network"], run_["arm"], 0), []).append(run_)
    for job in sorted(rows, key=_order):
        cells = []
        for form in forms:
            known = [run_["test"][form] for run_ in rows[job] if form in run_["test"]]
            cells.append(f"{_spread(known)} ({len(known)})" if known else "")
        lines.append(f"| {job.title}: {job.arm} | {' | '.join(cells)} |")
    found = results["gains, points"]
    # older results know nothing of other seeds
    drawn = (
        "seeds and test pictures" if all("seeds" in one for one in found) else "test pictures, these seeds"
    )
    mean = f"mean (95 % interval: other {drawn})"
    lines += ["", f"| gain over the same without, points | pairs | {mean} | deviation of pairs |"]
    lines.append("|---|---:|---:|---:|")
    for one in found:
        deviation = "" if one["deviation"] is None else f"{one['deviation']:.1f}"
        interval = "" if one["low"] is None else f" ({one['low']:+.1f}..{one['high']:+.1f})"
        gain = f"{one['value']:+.1f}{interval}"
        lines.append(f"| {one['of']}: {one['arm']} | {one['pairs']} | {gain} | {deviation} |")
    if not results["robust, by bound of 255"]:
        return "\n".join(lines)
    attacks = [f"{kind} {bound}" for bound in BOUNDS for kind in ("fgsm", "pgd", "bpda")]
    lines += ["", f"| top-1, % | clean | {' | '.join(attacks)} |", "|---|" + "---:|" * (1 + len(attacks))]
    for name, seeds in results["robust, by bound of 255"].items():
        cells = [_spread([one[key] for one in seeds if key in one]) for key in ("clean", *attacks)]
        lines.append(f"| {name} ({len(seeds)}) | {' | '.join(cells)} |")
    return "\n".join(lines)


def _order(job: Job) -> tuple[int, int, int]:
    networks = NETWORKS[job.dataset]
    return list(NETWORKS).index(job.dataset), networks.index(job.network), list(ARMS).index(job.arm)


def _spread(values: list[float]) -> str:
    if not values:
        return ""
    deviation = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.1f}{deviation}"


if __name__ == "__main__":
    main()
