"""Networks made of the lines of a function."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from means import HEAD

if TYPE_CHECKING:
    from dnnjpeg.networks.load import Network


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Callable[..., Network]":
    """The network that the lines of a function return, `net` being a Means."""
    from dnnjpeg.networks.load import load_network

    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # one of the same second would be taken for the new

    def load(*lines: str, **options: object) -> "Network":
        body = "\n    ".join(("net = Means()", *lines, "return net"))
        (tmp_path / "nets.py").write_text(f"{HEAD}\ndef tiny():\n    {body}\n")
        return load_network(f"{tmp_path / 'nets.py'}:tiny", **options)

    return load
