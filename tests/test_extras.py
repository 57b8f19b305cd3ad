"""The extras `test` and `integrations` hold what all tests import."""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

HOME = Path(__file__).parent
PROJECT = tomllib.loads((HOME.parent / "pyproject.toml").read_text())["project"]


def imported(path: Path) -> set[str]:
    """The modules that a file imports when it is loaded."""
    names = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.Import):
            names |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add((node.module or "").partition(".")[0])
    return names


def names_of(requirements: list[str]) -> set[str]:
    """The packages, without versions and extras."""
    return {requirement.split("[")[0].split(">=")[0].split("==")[0] for requirement in requirements}


@pytest.mark.parametrize("extra", ["test", "integrations"])
def test_what_the_fixtures_import(extra: str) -> None:
    """conftest.py, and the modules of tests/ that it loads, whichever tests run."""
    waiting, modules = {"conftest"}, set()
    while waiting:
        found = imported(HOME / f"{waiting.pop()}.py")
        own = {name for name in found if (HOME / f"{name}.py").exists()}
        modules |= found - own
        waiting |= own
    distributions = packages_distributions()
    installed = names_of(PROJECT["dependencies"]) | names_of(PROJECT["optional-dependencies"][extra])
    for module in modules - sys.stdlib_module_names - {"dnnjpeg"}:
        assert installed & {name.lower() for name in distributions[module]}, module
