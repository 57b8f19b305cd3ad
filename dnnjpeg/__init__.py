"""dnnjpeg: ordinary JPEG files for pictures that a neural network will look at.

>>> import dnnjpeg
>>> data = dnnjpeg.encode(array, "resnet50", quality=75)   # bytes of a .jpg any decoder reads
>>> image.save("x.jpg", format="DNNJPEG", model="resnet50")  # the same from Pillow
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnnjpeg.codec.encoder import encode, write_coefficients
    from dnnjpeg.codec.reader import Coefficients, read_coefficients
    from dnnjpeg.inspection import inspect
    from dnnjpeg.table import OperatingPoint, Table, list_tables, load_table
    from dnnjpeg.target import encode_to_target
    from dnnjpeg.transcoder import transcode

__version__ = "0.1.0"
__all__ = [
    "Coefficients",
    "OperatingPoint",
    "Table",
    "__version__",
    "encode",
    "encode_to_target",
    "inspect",
    "list_tables",
    "load_table",
    "read_coefficients",
    "transcode",
    "write_coefficients",
]

# Loaded on first use: numpy and numba take longer to import than most programs want to wait for `import
# dnnjpeg`.
_HOME = {
    "Coefficients": "dnnjpeg.codec.reader",
    "read_coefficients": "dnnjpeg.codec.reader",
    "encode": "dnnjpeg.codec.encoder",
    "encode_to_target": "dnnjpeg.target",
    "transcode": "dnnjpeg.transcoder",
    "write_coefficients": "dnnjpeg.codec.encoder",
    "inspect": "dnnjpeg.inspection",
    "OperatingPoint": "dnnjpeg.table",
    "Table": "dnnjpeg.table",
    "list_tables": "dnnjpeg.table",
    "load_table": "dnnjpeg.table",
}


def __getattr__(name: str) -> Any:
    if name in _HOME:
        value = globals()[name] = getattr(import_module(_HOME[name]), name)
        return value
    raise AttributeError(f"module 'dnnjpeg' has no attribute {name!r}")


import_module("dnnjpeg.plugins.pillow").register()
