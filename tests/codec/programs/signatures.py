"""Warm up, then ask for everything there is: fails where a kernel is compiled only now."""

import sys
from typing import Any

import numpy as np
from numba.core.dispatcher import Dispatcher
from PIL import Image

from dnnjpeg import (
    OperatingPoint,
    encode,
    encoder,
    read_coefficients,
    transcode,
    transcoder,
    write_coefficients,
)
from dnnjpeg.codec.pixels import MODES


def compiled() -> dict[str, list[Any]]:
    """The signatures of every kernel."""
    modules = [module for name, module in sys.modules.items() if name.startswith("dnnjpeg.codec.")]
    found = [value for module in modules for value in vars(module).values() if isinstance(value, Dispatcher)]
    return {f"{one.py_func.__module__}.{one.py_func.__name__}": list(one.signatures) for one in found}


OPTIONS: list[dict[str, Any]] = [
    {},
    {"hardness": 1},
    {"hardness": [None] * 63 + [9]},
    {"hardness": 2, "seed": 2**63 - 1},
    {"progressive": True},
    {"progressive": "auto"},
    {"threads": 2},
    {"threads": 2, "progressive": True},
    {"restart_rows": 1},
    {"restart_blocks": 7, "progressive": True},
    {"optimize": False},
    {"abbreviated": True},
    {"hardness": 2, "table": OperatingPoint(50, "4:2:0", (9,) * 64, (8,) * 64, max_index=30)},
    {"table": OperatingPoint(50, "4:2:2", (9,) * 64, (8,) * 64)},
]

for part in (encoder, transcoder):
    part.warmup()
    assert part.is_warm()
before = compiled()
rng = np.random.default_rng(0)
for mode, channels in MODES.items():
    picture = rng.integers(0, 256, (200, 50, channels), np.uint8)
    picture.flags.writeable = False
    for options in OPTIONS:
        encode(picture[::-1], mode=mode, **options)
encode(Image.new("RGB", (30, 40)))
encode(Image.new("L", (30, 40)))
for count in (1, 3, 4):
    for dtype in (np.int8, np.int64):
        planes = [np.zeros((2, 3, 64), dtype)] * count
        for options in ({}, {"progressive": True}, {"restart_blocks": 2}):
            write_coefficients(planes, [np.ones(64, int)], 24, 16, **options)
for mode in ("L", "RGB", "CMYK"):
    for progressive in (False, True):
        data = encode(
            rng.integers(0, 256, (70, 50, MODES[mode]), np.uint8), mode=mode, subsampling="4:4:4",
            progressive=progressive,
        )  # fmt: skip
        read_coefficients(data, salvage=True)
        for options in (
            {},
            {"hardness": 3},
            {"progressive": "auto"},
            {"restart_rows": 1},
            {"adaptive": True},
        ):
            transcode(data, **options)
        transcode(data, lossless=True)
for name, signatures in compiled().items():
    assert signatures == before[name], (name, before[name], signatures)
