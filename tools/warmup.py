"""`dnnjpeg warmup`: compile the codec ahead of time, and clean its cache."""

import time
from pathlib import Path

import click

from .paths import NamedPath


@click.command(short_help="Compile the codec once, so that nothing waits later.")
@click.option(
    "--into",
    type=NamedPath(file_okay=False),
    help="Copy the machine code into this folder, too. Other machines use it by DNNJPEG_KERNELS=FOLDER.",
)
def warmup(into: Path | None) -> None:
    """Compile the codec for this processor, and keep the machine code in the cache.

    Without this command, the first encoding compiles the codec. Machine code that was not used for 30 days is
    removed from the cache.
    """
    from dnnjpeg import encoder, transcoder
    from dnnjpeg.machine.kernel_cache import remove_old_kernels, ship_kernels

    start = time.perf_counter()
    cold = not (encoder.is_warm() and transcoder.is_warm())
    encoder.warmup()
    transcoder.warmup()
    remove_old_kernels()
    seconds = time.perf_counter() - start
    click.echo(f"{'compiled' if cold else 'was compiled already, loaded'} in {seconds:.1f} s")
    if into:
        folder = ship_kernels(into)
        click.echo(f"copied to {folder}: use it by DNNJPEG_KERNELS={into.absolute()}")
