"""Options that several commands have, each declared once, and the checks that go with them.

A command completes a declaration: `@seed_option(help="Seed of --limit.")`.
"""

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import click

from dnnjpeg.checks import check_quality
from dnnjpeg.jpeg.subsampling import SUBSAMPLINGS

from .paths import NamedPath

SPEC = "torchvision:NAME, timm:NAME, FILE.py:FUNCTION, MODULE:FUNCTION or FILE.onnx"
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
PATH = click.Path(exists=True, path_type=Path)


def parse_qualities(text: str) -> tuple[float, ...]:
    """Qualities 1 to 100, separated by commas: sorted, without repeats. Raises click.BadParameter."""
    try:
        return tuple(sorted({check_quality(float(word)) for word in text.split(",")}))
    except ValueError:
        raise click.BadParameter(
            f"{text!r} is not a list of qualities 1 to 100, expected for example 20,50,75"
        ) from None


def _to_qualities(
    _context: click.Context, _parameter: click.Parameter, text: str | None
) -> tuple[float, ...] | None:
    return None if text is None else parse_qualities(text)


# What runs.
network_option = partial(click.option, "--network", metavar="SPEC", help=f"Network: {SPEC}.")
weights_option = partial(
    click.option,
    "--weights",
    metavar="FILE",
    type=FILE,
    help="Weights for the network, in place of its own: .safetensors, .pt or .pth.",
)
device_option = partial(
    click.option,
    "--device",
    default="cpu",
    show_default=True,
    help="Device that runs the networks, for example cuda.",
)
task_option = partial(
    click.option,
    "--task",
    metavar="NAME|FILE.py:CLASS",
    help="What the networks' outputs mean: classification, embedding, dense, detection, tokens, or a class "
    "of your own.  [default: what the network says, else classification]",
)
threads_option = partial(
    click.option,
    "--threads",
    metavar="N",
    type=click.IntRange(1, 1024),
    help="Threads of a network that is an ONNX file.  [default: one for each processor]",
)
bfloat16_option = partial(
    click.option,
    "--bfloat16",
    is_flag=True,
    help="Run the networks in bfloat16. This is faster on some processors, and a little less exact.",
)
plan_option = partial(click.option, "--plan", metavar="FILE.json", type=FILE)

# On which pictures.
data_option = partial(
    click.option,
    "--data",
    metavar="DIR|FILE.npy",
    required=True,
    type=PATH,
    help="Folder of pictures, folder with one folder a class, or array file.",
)
LABELS = "CSV file with the columns file and label, or a .npy file for an array."
labels_option = partial(click.option, "--labels", metavar="FILE", type=FILE, help=LABELS)
crop_option = partial(
    click.option,
    "--crop",
    metavar="SIDE",
    type=click.IntRange(1, 65535),
    help="Cut pictures to squares before they are encoded.  [default: files as they are stored]",
)
limit_option = partial(
    click.option,
    "--limit",
    metavar="N",
    type=click.IntRange(1),
    help="Use at most N pictures, drawn at random.",
)
seed_option = partial(
    click.option, "--seed", metavar="N", type=click.IntRange(0, 2**63 - 1), default=0, show_default=True
)
batch_option = partial(click.option, "--batch", metavar="N", type=click.IntRange(1), show_default=True)

# How pictures are encoded.
table_option = partial(click.option, "--table", metavar="NAME|FILE.json")
subsampling_option = partial(click.option, "--subsampling", type=click.Choice(list(SUBSAMPLINGS)))
headerless_option = partial(click.option, "--headerless", is_flag=True)

qualities_option = partial(click.option, metavar="LIST", callback=_to_qualities)

# What becomes of the results.
json_option = partial(click.option, "--json", "as_json", is_flag=True)
resume_option = partial(click.option, "--resume", is_flag=True)
cache_option = partial(click.option, "--cache", metavar="DIR", type=NamedPath(file_okay=False))


def check_folders(*paths: Path | None) -> None:
    """Raise click.UsageError for a path in a folder that does not exist. None is no path."""
    for path in filter(None, paths):
        if not path.parent.is_dir():
            raise click.UsageError(f"{path} cannot be written: there is no folder {path.parent}")


def check_single(option: str, value: object, specs: Sequence[str]) -> None:
    """Raise click.UsageError if an option that needs exactly one network has a value, without one."""
    if value and len(set(specs)) != 1:
        raise click.UsageError(f"{option} needs exactly one --network, {len(set(specs))} are given")


def missing(package: str | None, command: str, extra: str = "learn") -> click.UsageError:
    """The error for a package that a command needs and that is not installed."""
    return click.UsageError(f"{package} is missing, and {command} needs it: pip install 'dnnjpeg[{extra}]'")
