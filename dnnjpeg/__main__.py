"""`python -m dnnjpeg` is the command `dnnjpeg`."""

from importlib import import_module

import_module("dnnjpeg.tools.cli").run("python -m dnnjpeg")
