"""`dnnjpeg warmup`: compile the codec once, so that nothing waits for it later."""

import time

import click


@click.command(short_help="Compile the codec once, so that nothing waits later.")
def warmup() -> None:
    """Compile the codec for this processor, into a cache that later runs read.

    Otherwise the first encoding does it.
    """
    from dnnjpeg import encoder
    from dnnjpeg.transcoder import warmup as warm_transcoder

    start = time.perf_counter()
    cold = not encoder.is_warm()
    encoder.warmup()
    warm_transcoder()
    seconds = time.perf_counter() - start
    click.echo(f"{'compiled' if cold else 'was compiled already, loaded'} in {seconds:.1f} s")
