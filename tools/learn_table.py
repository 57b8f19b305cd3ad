"""`dnnjpeg learn-table`: quantization tables learned for networks, from pictures."""

import os
import shlex
import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from dnnjpeg.checks import one_line
from dnnjpeg.table.fields import check_name

from .learn_run import run
from .options import (
    LABELS,
    PATH,
    SPEC,
    bfloat16_option,
    cache_option,
    check_folders,
    check_single,
    crop_option,
    data_option,
    device_option,
    headerless_option,
    labels_option,
    limit_option,
    missing,
    network_option,
    qualities_option,
    resume_option,
    seed_option,
    subsampling_option,
    task_option,
    threads_option,
    weights_option,
)
from .paths import NamedPath

if TYPE_CHECKING:
    from dnnjpeg.learn.methods import MethodOptions
    from dnnjpeg.learn.objective import Objective

_HELD_OUT = 0.3  # of the pictures: they choose among the candidates, which are learned on the others
_PUBLISHED = {"method": "j4d", "rate": "entropy", "relaxation": "soft", "hardness": "learned"}


# fmt: off
@click.command(short_help="Learn a quantization table for networks from pictures.")
@network_option("specs", multiple=True, required=True,
                help=f"Network: {SPEC}. Repeat it to learn one table for several networks.")
@task_option()
@threads_option()
@weights_option()
@data_option()
@labels_option(help=f"{LABELS} Labels add top-1 to the report. They change what is learned only with --loss "
                    "cross-entropy.")
@click.option("--loss", type=click.Choice(["divergence", "cross-entropy"]), default="divergence",
              show_default=True,
              help="Loss to minimise: the divergence from the networks' predictions on the originals, which "
                   "is the distance of the --task, or the cross-entropy with the labels, minus that of the "
                   "originals.")
@click.option("-o", "--output", metavar="FILE.json", required=True, type=NamedPath(dir_okay=False),
              help="Where to write the table. The folder FILE.report beside it gets all measurements and a "
                   "plot.")
@click.option("--name", help="Name of the table.  [default: the name of the file]")
@click.option("--method", type=click.Choice(["slopes", "j4d", "sensitivity", "deepn", "given"]),
              default="slopes", show_default=True,
              help="slopes: measure what each step costs in loss and saves in bytes, and make the ratio of "
                   "the two equal everywhere; j4d: gradient descent through a differentiable JPEG; "
                   "sensitivity: a closed form, without training; deepn: from the pictures alone, like "
                   "DeepN-JPEG; given: the points of the table --start, with qualities measured for these "
                   "networks.")
@click.option("--start", metavar="sensitivity|NAME|FILE.json", default="sensitivity", show_default=True,
              help="Where --method j4d starts: from the closed form, or from a table, for example standard. "
                   "With --method given, the table whose points are used.")
@click.option("--published", is_flag=True,
              help="J4D as published: --method j4d --rate entropy --relaxation soft --hardness learned.")
@click.option("--rate", type=click.Choice(["scan", "entropy"]), default="scan", show_default=True,
              help="Rate that j4d minimises. scan: the bits of a real file, with runs and headers; entropy: "
                   "the entropy of each frequency's indices.")
@click.option("--relaxation", type=click.Choice(["straight-through", "soft"]), default="straight-through",
              show_default=True,
              help="What networks see while j4d learns. straight-through: rounded coefficients (sampled "
                   "ones if hardness is learned), with the gradients of the soft quantizer; soft: the "
                   "output of the soft quantizer.")
@click.option("--points", type=click.IntRange(1, 50), default=9, show_default=True,
              help="How many points to learn, near qualities 10 to 90. The best are kept.")
@qualities_option("--qualities",
                  help="Learn near these qualities, for example 20,50,75, in place of --points.")
@subsampling_option("subsamplings", multiple=True, default=("4:4:4", "4:2:2", "4:2:0"), show_default=True,
                    help="Chroma subsampling to try. Repeat it to try several: each point gets the best.")
@click.option("--tables", type=click.IntRange(2, 3), default=2, show_default=True,
              help="Number of quantization tables. 2: Cb and Cr share one.")
@click.option("--steps", type=click.IntRange(1), default=150, show_default=True,
              help="Gradient steps of j4d for each candidate.")
@click.option("--hardness", type=click.Choice(["annealed", "learned"]), default="annealed", show_default=True,
              help="Hardness in j4d. annealed: for rounding to the nearest; learned: for the probabilistic "
                   "quantizer.")
@click.option("--time-budget", metavar="MINUTES", type=click.FloatRange(0, min_open=True),
              help="Time for the whole run, kept within 10 %. The methods slopes and j4d stop early if "
                   "they must. A time too short for any table is an error.")
@headerless_option(help="Count only entropy-coded data, with the standard Huffman codes. Use it when many "
                        "pictures share one set of tables.")
@crop_option()
@click.option("--check", metavar="DIR|FILE.npy", type=PATH,
              help="Pictures that are not used for learning. The table's qualities are compared with the "
                   "standard table's on them, and the result is written into the table.")
@limit_option()
@seed_option(help="Seed of all random choices.")
@device_option()
@bfloat16_option()
@cache_option(help="Folder that keeps what networks read in files, so that an interrupted run goes on from "
                   "there.  [default: in the user's cache folder]")
@resume_option(help="Go on with an interrupted run of --method j4d. The other methods need no --resume.")
def learn_table(
    output: Path,
    name: str | None,
    points: int,
    qualities: tuple[float, ...] | None,
    resume: bool,
    published: bool,
    **how: Any,
) -> None:
    """Learn a quantization table. At equal bytes, networks lose less than with the standard table.

    Pictures are encoded as they are stored. Networks see them as their own preprocessing says: resized and
    cropped.

    Candidates are learned on 70 % of the pictures, near the rates of standard JPEG files of several
    qualities. Then they are measured on all pictures, as real files. The best candidates become the points of
    the table. A point gets the quality of the standard JPEG, 4:2:0, that costs the networks as much. Five
    folds measure how much of a candidate's gain is luck, and this part is not counted. More points are added
    where a quality between two points would cost more or less than the standard JPEG does.

    If a run is interrupted, give the same command again (with --resume for --method j4d): it goes on from the
    measurements in the cache.

    The printed gains are optimistic, because the same pictures chose the points. The last line names the
    command that measures the gains on other pictures.

    With several processes: torchrun --nproc-per-node N --no-python dnnjpeg learn-table ...

    Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    began = time.monotonic()
    check_folders(output)
    check_single("--weights", how["weights"], how["specs"])
    name = name or output.stem
    try:
        check_name(name)
    except ValueError as error:
        raise click.UsageError(f"{error}: give another one by --name") from None
    folder = output.with_suffix(".report")
    if published:
        how = _as_published(how)
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise missing("torch", "learn-table") from None
    if not resume and any(folder.glob("*.pt")):
        raise click.UsageError(f"{folder} has an interrupted run: go on with --resume, or delete it")
    spread = [round(10 + 80 * i / (points - 1)) for i in range(points)] if points > 1 else [50]
    from dnnjpeg.learn.processes import is_first, processes

    with processes():
        try:
            try:
                prepared = _prepare(began=began, qualities=qualities or spread, **how)
            except (ValueError, OSError) as error:
                raise click.UsageError(str(error)) from None
            run(*prepared, output, name, began)
        except (ValueError, OSError) as error:
            raise click.ClickException(str(error)) from None
        except KeyboardInterrupt:
            how_to = " with --resume" if how["method"] == "j4d" else ""
            click.echo(f"interrupted; the same command{how_to} goes on from here", err=True)
            raise SystemExit(130) from None
    if is_first():
        click.echo(one_line(_advice(output, **how)))
# fmt: on


def _advice(output: Path, *, specs: Sequence[str], task: str | None, weights: Path | None, crop: int | None,
            headerless: bool, **_: Any) -> str:  # fmt: skip
    """A line that says how to measure the gains on other pictures."""
    options = [part for spec in specs for part in ("--network", spec)]
    options += ["--task", task] if task else []
    options += ["--weights", str(weights)] if weights else []
    options += ["--crop", str(crop)] if crop else []
    options += ["--headerless"] if headerless else []
    options += ["--codec", f"dnnjpeg:{output}", "--data", "OTHER_PICTURES"]
    return (
        "These gains are optimistic: the same pictures have chosen the points. To measure the gains on other "
        f"pictures: dnnjpeg evaluate {shlex.join(options)}"
    )


def _as_published(how: dict[str, Any]) -> dict[str, Any]:
    """The options of J4D as published. Raises click.UsageError for options that say something else."""
    source = click.get_current_context().get_parameter_source
    for name, value in _PUBLISHED.items():
        if source(name) is click.core.ParameterSource.COMMANDLINE and how[name] != value:
            raise click.UsageError(
                f"--published means --{name} {value}, and --{name} {how[name]} is given: leave one out"
            )
    return how | _PUBLISHED


def _prepare(
    *,
    began: float,
    specs: Sequence[str],
    task: str | None,
    threads: int | None,
    weights: Path | None,
    data: Path,
    labels: Path | None,
    check: Path | None,
    crop: int | None,
    loss: Any,
    limit: int | None,
    seed: int,
    device: str,
    bfloat16: bool,
    headerless: bool,
    cache: Path | None,
    steps: int,
    rate: Any,
    relaxation: str,
    hardness: Any,
    time_budget: float | None,
    **search: Any,
) -> "tuple[Objective, Objective, Objective | None, MethodOptions]":
    """Load all that the arguments name.

    Returns the objective for learning, one for choosing, one for the check, and how to search.
    """
    import platformdirs

    from dnnjpeg.files.cache import Cache
    from dnnjpeg.files.dataset import Dataset, load_dataset
    from dnnjpeg.learn.j4d import Settings
    from dnnjpeg.learn.methods import MethodOptions
    from dnnjpeg.learn.objective import Objective
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.readings import LabelError

    if device == "cuda":
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}"
    networks = [
        load_network(spec, weights=weights, device=device, task=task, threads=threads)
        for spec in dict.fromkeys(specs)
    ]
    if (method := search["method"]) in ("j4d", "sensitivity"):
        for network in networks:
            network.need_gradients(f"--method {method}", "use --method slopes")
    dataset = load_dataset(data, labels, size=crop, limit=limit, seed=seed)
    kept = Cache(cache or platformdirs.user_cache_path("dnnjpeg") / "readings")

    def make(part: Dataset, loss: Any = "divergence") -> Objective:
        objective = partial(Objective, networks, autocast=bfloat16, headerless=headerless, cache=kept)
        try:
            return objective(part, loss)
        except LabelError as error:
            if labels is not None or loss != "divergence":
                raise
            click.echo(
                one_line(f"no top-1 is reported: the class folders are not classes of the network ({error})"),
                err=True,
            )
            return objective(replace(part, labels=None), loss)

    held_out, learning = (make(part, loss) for part in dataset.split(_HELD_OUT, seed))
    unseen = None if check is None else make(replace(load_dataset(check, size=crop), labels=None))
    drawn: Any = "sampled" if hardness == "learned" else "hard"
    mode: Any = "soft" if relaxation == "soft" else drawn
    settings = Settings(steps=steps, rate=rate, hardness=hardness, mode=mode, seed=seed)
    end = None if time_budget is None else began + 60 * time_budget
    return learning, held_out, unseen, MethodOptions(settings=settings, deadline=end, **search)
