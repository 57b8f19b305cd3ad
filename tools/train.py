"""`dnnjpeg train`: networks trained behind a JPEG layer with trainable steps, or adapted to given files."""

from pathlib import Path
from typing import Any

import click
from click.core import ParameterSource

from .options import (
    FILE,
    LABELS,
    PATH,
    SPEC,
    batch_option,
    bfloat16_option,
    data_option,
    device_option,
    labels_option,
    missing,
    network_option,
    qualities_option,
    resume_option,
    seed_option,
    subsampling_option,
    table_option,
    weights_option,
)
from .paths import NamedPath
from .train_run import LAYER, NETWORK, REPORT, STATE, prepare, run


# fmt: off
@click.command(short_help="Train a network behind a JPEG layer, or on JPEG files.")
@network_option("spec", required=True,
                help=f"Network: {SPEC}. torchvision and timm networks come trained. A function may return "
                     "fresh weights; --seed sets them.")
@weights_option()
@data_option(help="Pictures for training: a folder, a folder with one folder a class, or an array file.")
@labels_option(help=f"{LABELS} --finetune distill needs no labels.")
@click.option("--validation", metavar="SHARE", type=click.FloatRange(0, 1, min_open=True, max_open=True),
              default=0.1, show_default=True,
              help="Share of the pictures that is used for validation. These pictures decide which epoch is "
                   "kept.")
@click.option("--test", metavar="DIR|FILE.npy", type=PATH,
              help="Other pictures. The accuracy on them is measured once, at the end.")
@click.option("--test-labels", metavar="FILE", type=FILE,
              help="Labels of the --test pictures, in the form of --labels.")
@click.option("-o", "--output", metavar="DIR", required=True, type=NamedPath(file_okay=False),
              help="Folder for all results. It is made if it is missing.")
@click.option("--layer/--no-layer", default=None,
              help="Put a JPEG layer before the network, and train both.  [default: --layer, or --no-layer "
                   "with --table]")
@click.option("--start", type=click.Choice(["standard", "sensitivity", "magnitude", "ones"]),
              default="standard", show_default=True,
              help="First steps of the layer. standard: the standard table at quality 75; sensitivity: small "
                   "steps where the network --sensitive is sensitive, as in JPEG-DL; magnitude: steps in "
                   "proportion to the mean coefficients; ones: all steps 1. Steps of 1 quantize very little, "
                   "and stay small without --price.")
@click.option("--sensitive", metavar="SPEC", help="A trained network, for --start sensitivity.")
@click.option("--kappa", type=click.FloatRange(0, min_open=True),
              help="Hardness relative to the step.  [default: 5, unless --alpha is given]")
@click.option("--alpha", type=click.FloatRange(0, min_open=True),
              help="Hardness that does not depend on the step, as in the paper of JPEG-DL.")
@click.option("--learn-hardness", is_flag=True, help="Train the hardness, too, for each frequency.")
@click.option("--levels", type=click.IntRange(3),
              help="Number of quantization indices, for example 255. Larger coefficients are clipped.")
@click.option("--least", type=click.FloatRange(0, 255, min_open=True), default=1.0, show_default=True,
              help="The smallest step. Files have no steps below 1, so a smaller value needs --levels or "
                   "--real-steps.")
@click.option("--integer-steps/--real-steps", default=True, show_default=True,
              help="Train with steps rounded to integers, as files have them. With --real-steps, only the "
                   "files have rounded steps, so they differ a little from what was trained.")
@click.option("--rounds", type=click.IntRange(1), default=1, show_default=True,
              help="Number of JPEG layers, one after the other.")
@subsampling_option(default="4:4:4", show_default=True,
                    help="Chroma subsampling of the layer and of its files.")
@click.option("--price", metavar="NAT", type=click.FloatRange(0), default=0.0, show_default=True,
              help="Minimise loss + NAT x bytes of the layer's files, for example 1e-4. It needs --rounds 1.")
@table_option(help="Train on JPEG files with this table, in place of the originals.")
@qualities_option("--quality", "qualities", default="75", show_default=True,
              help="Quality of the --table files. With several, for example 20,50,75, each picture gets one "
                   "at random.")
@click.option("--finetune", type=click.Choice(["all", "bn", "distill"]),
              help="Continue with the network's own weights; batch norm statistics stay fixed, dropout is "
                   "off. all: train all weights; bn: train only the weights of the batch norms; distill: "
                   "train all weights to predict what the network predicts for the originals.")
@click.option("--epochs", type=click.IntRange(1), default=40, show_default=True,
              help="Passes over the training pictures. Rates fall to the end of the last one.")
@batch_option(default=64,
              help="Pictures a training step. Fewer take less memory; then lower --lr in proportion.")
@click.option("--lr", type=click.FloatRange(0), default=0.05, show_default=True,
              help="Learning rate of the weights. With --finetune, try 0.001.")
@click.option("--decay", type=click.FloatRange(0), default=5e-4, show_default=True,
              help="Weight decay of the weights.")
@click.option("--layer-lr", type=click.FloatRange(0), default=0.03, show_default=True,
              help="Learning rate of the logarithms of the layer's steps.")
@click.option("--schedule", type=click.Choice(["cosine", "steps"]), default="cosine", show_default=True,
              help="How --lr and --layer-lr fall. cosine: smoothly to 0; steps: to a tenth after 5/8, 3/4 "
                   "and 7/8 of the epochs.")
@click.option("--pad", type=click.IntRange(0), default=4, show_default=True,
              help="Black pixels added around a picture before it is cropped at random.")
@click.option("--flip/--no-flip", default=True, show_default=True,
              help="Mirror pictures at random, half of them.")
@click.option("--size", type=click.IntRange(1, 65535),
              help="Pictures are loaded at this size, then cropped to the network's.  [default: the "
                   "network's]")
@bfloat16_option()
@seed_option(help="Seed of all random numbers: fresh weights, validation pictures, order, crops, mirroring. "
                  "The same seed gives the same training.")
@device_option()
@resume_option(help="Go on with an interrupted training.")
def train(output: Path, resume: bool, **how: Any) -> None:
    """Train a network. By default a JPEG layer stands before it, and its quantization steps are trained, too.

    DIR gets these files: network.safetensors, the weights (for --weights); jpeg.safetensors, the layer;
    jpeg.json, the layer's table, which encodes real files; report.json, the accuracies; log.jsonl, a line an
    epoch; log.png, if matplotlib is installed.

    Exit status: 0 done, 1 failed, 2 wrong usage, 130 interrupted.
    """
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise missing("torch", "train") from None
    _check_use(how)
    _check_folder(output, resume)
    try:
        try:
            training = prepare(**how)
        except (ValueError, OSError) as error:
            raise click.UsageError(str(error)) from None
        output.mkdir(parents=True, exist_ok=True)
        run(training, output)
    except (ValueError, OSError) as error:
        raise click.ClickException(str(error)) from None
    except KeyboardInterrupt:
        is_kept = (output / STATE).exists()
        hint = "the same command with --resume goes on from here" if is_kept else "no epoch was finished"
        click.echo(f"interrupted; {hint}", err=True)
        raise SystemExit(130) from None
# fmt: on


def _check_use(how: dict[str, Any]) -> None:
    """Refuse options that need another option."""
    context, layer, table = click.get_current_context(), how["layer"], how["table"]
    has_layer = layer or (layer is None and table is None)
    idle = [] if has_layer else [*LAYER, "start", "sensitive", "layer_lr", "price"]
    for option in context.command.params:
        if context.get_parameter_source(option.name or "") is not ParameterSource.COMMANDLINE:
            continue
        if option.name in idle:
            given = (option.secondary_opts if how[option.name] is False else option.opts)[0]
            why = ", and --no-layer is given: leave one out" if layer is False else ": give --layer, too"
            raise click.UsageError(f"{given} needs a JPEG layer{why}")
        if option.name == "qualities" and table is None:
            raise click.UsageError("--quality needs a table: give --table, too")
    if how["test_labels"] is not None and how["test"] is None:
        raise click.UsageError("--test-labels needs test pictures: give --test, too")
    if (how["start"] == "sensitivity") != (how["sensitive"] is not None):
        raise click.UsageError("--start sensitivity and --sensitive SPEC go together: give both or neither")
    if how["price"] and how["rounds"] > 1:
        raise click.UsageError(f"--price needs --rounds 1, and --rounds is {how['rounds']}")


def _check_folder(output: Path, resume: bool) -> None:
    """Refuse to overwrite a training, and to resume one that does not exist."""
    if (output / STATE).exists():
        if not resume:
            raise click.UsageError(f"{output} has an interrupted training: go on with --resume, or delete it")
    elif any((output / name).exists() for name in (NETWORK, REPORT)):
        raise click.UsageError(f"{output} has a finished training: give another folder, or delete it")
    elif resume:
        raise click.UsageError(f"{output} has no interrupted training: start one without --resume")
