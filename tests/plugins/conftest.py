"""Fixtures of the plugins' tests."""

from typing import Any

import pytest

from dnnjpeg.plugins import pillow


@pytest.fixture(autouse=True)
def standard_tables() -> Any:
    """Pillow's own, to compare with; afterwards the plain defaults."""
    pillow.register(model="standard")
    yield
    pillow.register()
