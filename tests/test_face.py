"""What `import dnnjpeg` offers, and that tools which read code know it as well."""

import ast
import pydoc
import subprocess
import sys
from pathlib import Path

import pytest

import dnnjpeg

ROOT = Path(__file__).parents[1]


def test_every_public_name_can_be_loaded() -> None:
    for name in dnnjpeg.__all__:
        if name == "JPEGLayer":  # needs torch
            continue
        assert getattr(dnnjpeg, name) is not None


@pytest.mark.parametrize("name", ["JPEGLayer", "load_network"])
def test_without_torch_an_error_says_what_to_install(name: str) -> None:
    program = f"import sys; sys.modules['torch'] = None; import dnnjpeg; dnnjpeg.{name}"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert run.stderr.splitlines()[-1] == (
        f"ModuleNotFoundError: dnnjpeg.{name} needs torch: pip install 'dnnjpeg[learn]'"
    )


def test_completion_offers_the_public_names_and_no_helper() -> None:
    offered = {name for name in dir(dnnjpeg) if not name.startswith("_")}
    assert offered == {name for name in dnnjpeg.__all__ if not name.startswith("_")}


def test_a_type_checker_is_told_the_names_that_there_are() -> None:
    tree = ast.parse(Path(dnnjpeg.__file__).read_text())
    told = {
        (alias.asname, node.module)
        for branch in tree.body
        if isinstance(branch, ast.If)
        for node in branch.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert told == set(dnnjpeg._HOMES.items())


def test_mypy_checks_a_users_program(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import dnnjpeg\n"
        "import numpy as np\n"
        "pixels = np.zeros((8, 8, 3), np.uint8)\n"
        "table = dnnjpeg.load_table('standard')\n"
        "data = dnnjpeg.encode(pixels, table, quality=75)\n"
        "reveal_type(data)\n"
        "reveal_type(dnnjpeg.inspect(data).width)\n"
        "reveal_type(table.name)\n"
        "dnnjpeg.encode(pixels, table, qualty=75)\n"
    )
    run = subprocess.run(
        [sys.executable, "-m", "mypy", "--no-incremental", "--follow-imports=silent", str(program)],
        cwd=tmp_path,
        env={"PATH": "", "MYPYPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    lines = [line.split(":", 1)[1] for line in run.stdout.splitlines() if line.startswith("program.py")]
    told = [line for line in lines if "Revealed type" in line]
    assert [line.rpartition(" is ")[2].replace("builtins.", "") for line in told] == [
        '"bytes"',
        '"int"',
        '"str"',
    ]
    assert any(line.startswith("9: error") and "qualty" in line for line in lines)


def test_a_plain_copy_of_the_repository_can_be_imported(tmp_path: Path) -> None:
    """As a newcomer does, who stands in the clone: the folder there hides what is installed."""
    for folder in ("dnnjpeg", "plugins", "tools", "tables"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    code = (
        "import sys; sys.path.insert(0, ''); import dnnjpeg, dnnjpeg.plugins.pillow, dnnjpeg.tools.cli;"
        "assert 'universal' in dnnjpeg.list_tables(); print(dnnjpeg.__file__)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert Path(run.stdout.strip()).parents[1] == tmp_path


def test_python_dash_m_is_the_command() -> None:
    run = subprocess.run(
        [sys.executable, "-m", "dnnjpeg", "--version"], capture_output=True, text=True, check=True
    )
    assert run.stdout == f"dnnjpeg {dnnjpeg.__version__}\n"


def test_help_of_encode_fits_on_a_screen() -> None:
    assert len(pydoc.plain(pydoc.render_doc(dnnjpeg.encode)).splitlines()) <= 40
