"""The bar that shows how far a run of `dnnjpeg encode` is."""

from typing import Any


def progress(total: int | None, unit: str, *, is_shown: bool = True) -> Any:
    """A bar of tqdm. It starts no thread, see `machine.startup.one_thread`: it looks at the clock at each
    step.
    """
    from tqdm import tqdm

    tqdm.monitor_interval = 0
    return tqdm(total=total, unit=f" {unit}", leave=False, miniters=1, disable=not is_shown)
