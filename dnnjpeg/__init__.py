"""dnnjpeg: ordinary JPEG files for pictures that a neural network will look at.

>>> import dnnjpeg
>>> data = dnnjpeg.encode(array, "resnet50", quality=75)   # bytes of a .jpg any decoder reads
>>> image.save("x.jpg", format="DNNJPEG", model="resnet50")  # the same from Pillow
"""

import os as _os
from importlib import import_module as _import_module
from pathlib import Path as _Path
from typing import TYPE_CHECKING as _TYPE_CHECKING

if _TYPE_CHECKING:
    from dnnjpeg.codec.reader import Coefficients as Coefficients
    from dnnjpeg.codec.reader import read_coefficients as read_coefficients
    from dnnjpeg.encoder import encode as encode
    from dnnjpeg.encoder import tables_only as tables_only
    from dnnjpeg.encoder import write_coefficients as write_coefficients
    from dnnjpeg.jpeg.inspect import inspect as inspect
    from dnnjpeg.learn.jpegdl import JPEGLayer as JPEGLayer
    from dnnjpeg.machine.memory import release_memory as release_memory
    from dnnjpeg.networks.load import load_network as load_network
    from dnnjpeg.table.library import list_tables as list_tables
    from dnnjpeg.table.library import load_table as load_table
    from dnnjpeg.table.point import OperatingPoint as OperatingPoint
    from dnnjpeg.table.table import Table as Table
    from dnnjpeg.target.search import Encoded as Encoded
    from dnnjpeg.target.target import encode_to_target as encode_to_target
    from dnnjpeg.transcoder import transcode as transcode

__version__ = "0.1.0"

# Loaded on first use: numpy, numba and torch take longer to import than most programs want to wait.
_HOMES = {
    "Coefficients": "dnnjpeg.codec.reader",
    "Encoded": "dnnjpeg.target.search",
    "JPEGLayer": "dnnjpeg.learn.jpegdl",
    "OperatingPoint": "dnnjpeg.table.point",
    "Table": "dnnjpeg.table.table",
    "encode": "dnnjpeg.encoder",
    "encode_to_target": "dnnjpeg.target.target",
    "inspect": "dnnjpeg.jpeg.inspect",
    "list_tables": "dnnjpeg.table.library",
    "load_network": "dnnjpeg.networks.load",
    "load_table": "dnnjpeg.table.library",
    "read_coefficients": "dnnjpeg.codec.reader",
    "release_memory": "dnnjpeg.machine.memory",
    "tables_only": "dnnjpeg.encoder",
    "transcode": "dnnjpeg.transcoder",
    "write_coefficients": "dnnjpeg.encoder",
}
__all__ = [*_HOMES, "__version__"]

# Installed, plugins, tools and tables are in this folder. In a copy of the repository they lie beside it.
_here = _Path(__file__).parent
if not (_here / "plugins").is_dir():
    __path__.append(str(_here.parent))


def __getattr__(name: str) -> object:
    if name in _HOMES:
        try:
            home = _import_module(_HOMES[name])
        except ModuleNotFoundError as error:
            if error.name != "torch":
                raise
            raise ModuleNotFoundError(
                f"dnnjpeg.{name} needs torch: pip install 'dnnjpeg[learn]'", name=error.name
            ) from None
        value = globals()[name] = getattr(home, name)
        return value
    raise AttributeError(f"module 'dnnjpeg' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__all__", "__doc__", "__file__", "__name__", "__path__"])


_import_module("dnnjpeg.plugins.pillow").register()
if _takeover := _os.environ.get("DNNJPEG_TAKEOVER"):
    _import_module("dnnjpeg.plugins.takeover").take_over_as_told(_takeover)
