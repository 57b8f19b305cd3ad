"""Fixtures of the plugins' tests."""

from typing import Any

import pytest

from dnnjpeg.plugins import pillow


@pytest.fixture(autouse=True)
def plain_defaults() -> Any:
    yield
    pillow.register()
