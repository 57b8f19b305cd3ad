"""Networks: what is loaded, on which device, with which preprocessing, and what is refused."""

import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from means import HEAD, MEAN, STD

torch = pytest.importorskip("torch")

from dnnjpeg.networks.load import Network, load_network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402


def test_a_network_is_frozen(make: Callable[..., Network], tmp_path: Path) -> None:
    network = make("net.double()")
    assert network.name == "tiny" and network.spec == f"{tmp_path}/nets.py:tiny"
    assert network.preprocess == Preprocess(16, MEAN, STD) and network.device == torch.device("cpu")
    assert not any(module.training for module in network.module.modules())
    for parameter in network.module.parameters():
        assert not parameter.requires_grad and parameter.dtype == torch.float32


def test_a_file_finds_its_neighbours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "a:b"
    folder.mkdir()
    (folder / "neighbour_one.py").write_text(HEAD)
    (folder / "neighbour_two.py").write_text("SIZE = 8")
    # The file has the name of a module that is there: it must get in nobody's way.
    (folder / "json.py").write_text(
        "from neighbour_one import Means\n"
        "def net():\n"
        "    from neighbour_two import SIZE\n"
        "    net = Means()\n"
        "    net.preprocess['size'] = SIZE\n"
        "    return net\n"
    )
    monkeypatch.chdir(folder)
    import json

    path = list(sys.path)
    assert load_network("json.py:net").preprocess.size == 8
    assert load_network(f"{folder}/json.py:net").preprocess.size == 8
    assert sys.path == path and sys.modules["json"] is json


def test_a_module_s_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "package_of_nets").mkdir()
    (tmp_path / "package_of_nets" / "small.py").write_text(HEAD)
    monkeypatch.syspath_prepend(tmp_path)
    network = load_network("package_of_nets.small:Means")
    assert network.name == "Means" and network.preprocess.size == 16


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("resnet50", "'resnet50' names no network, expected torchvision:NAME, "),
        ("zoo.py:", "'zoo.py:' names no network"),
        (":resnet50", "':resnet50' names no network"),
        (
            "no_such_package.nets:tiny",
            "there is no module no_such_package: expected .*path/to/file.py:function",
        ),
        ("json.nets:tiny", "there is no module json.nets"),
        ("json:tiny", "json:tiny is not a function. Functions there: dump, dumps, "),
        ("json:__version__", "json:__version__ is not a function"),
        ("json:dumps", r"json:dumps fails: TypeError: dumps\(\) missing"),
        ("collections:OrderedDict", "returns OrderedDict, expected an nn.Module"),
        ("../x:tiny", r"\.\./x:tiny cannot be imported"),
    ],
)
def test_a_spec_that_leads_nowhere(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load_network(spec)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def tiny(:", "nets.py fails: SyntaxError: "),
        ("import no_such_package", "nets.py fails: ModuleNotFoundError: No module named 'no_such_package'"),
        ("raise SystemExit(0)", "nets.py fails: SystemExit: 0"),
        ("def other(): ...\ndef _own(): ...", "nets.py:tiny is not a function. Functions there: other$"),
        ("tiny = 3", "nets.py:tiny is not a function. Functions there: none"),
        ("def tiny(): raise KeyError('conv1')", "nets.py:tiny fails: KeyError: 'conv1'"),
        ("def tiny(): return [3]", "nets.py:tiny returns list, expected an nn.Module"),
        (
            "import torch\ntiny = torch.nn.Flatten",
            "preprocessing of .*nets.py:tiny is not known: give the module",
        ),
    ],
)
def test_a_file_that_fails(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "nets.py").write_text(text)
    path = list(sys.path)
    with pytest.raises(ValueError, match=message):
        load_network(f"{tmp_path}/nets.py:tiny")
    assert sys.path == path


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nets\.py"):
        load_network(f"{tmp_path}/nets.py:tiny")


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "", "mps:3"])
def test_a_device_that_is_not_there(make: Callable[..., Network], device: str) -> None:
    with pytest.raises(ValueError, match=f"device '{device}' cannot be used"):
        make(device=device)


# Preprocessing


@pytest.mark.parametrize(
    ("preprocess", "message"),
    [
        ("dict(mean=(0.5,) * 3, std=(0.5,) * 3)", "size is missing"),
        ("dict(size=16, mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.8)", "'crop' is not a field"),
        ("dict(size=0, mean=(0.5,) * 3, std=(0.5,) * 3)", r"size is 0, expected an integer"),
        ("dict(size=(16, 16), mean=(0.5,) * 3, std=(0.5,) * 3)", r"size is \(16, 16\), expected an integer"),
        ("dict(size=16, mean=0.5, std=(0.5,) * 3)", "mean is 0.5, expected three numbers"),
        ("dict(size=16, mean=(0.5,), std=(0.5,) * 3)", r"mean is \(0.5,\), expected three numbers"),
        (
            "dict(size=16, mean=(124, 116, 104), std=(58, 57, 57))",
            "mean is .*, expected 0..1, the mean of pixels",
        ),
        ("dict(size=16, mean=(0.5,) * 3, std=(0.5, 0, 0.5))", "std is .*, expected numbers above 0"),
        ("dict(size=16, mean=(0.5,) * 3, std=(0.5, float('nan'), 1))", "std is .*, expected three numbers"),
        ("lambda x: x", "preprocess is <function .*, expected an object"),
    ],
)
def test_preprocessing_that_is_malformed(make: Callable[..., Network], preprocess: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"preprocessing of .*nets\.py:tiny is not known: {message}"):
        make(f"net.preprocess = {preprocess}")


@given(
    st.tuples(*[st.floats(0, 1)] * 3),
    st.tuples(*[st.floats(1e-3, 10)] * 3),
    st.integers(1, 65535),
    st.booleans(),
)
def test_preprocessing_takes_any_sequence(
    mean: Sequence[float], std: Sequence[float], size: int, lists: bool
) -> None:
    given_ = {
        "size": np.int64(size),
        "mean": list(mean) if lists else np.array(mean),
        "std": torch.tensor(std),
    }
    read = Preprocess.of({**given_, "std": std})
    assert read == Preprocess(size, tuple(mean), tuple(std))
    assert all(type(x) is float for x in (*read.mean, *read.std)) and type(read.size) is int


PLAIN = """
import torch
from torch import nn

class Plain(nn.Module):
    preprocess = dict(size=8, mean=(0.5, 0.5, 0.5), std=(0.25, 0.25, 0.25))

    def __init__(self, scale):
        super().__init__()
        torch.manual_seed(0)
        self.last, self.scale = nn.Linear(192, 5), scale

    def forward(self, x):
        return self.scale * nn.functional.relu(self.last(x.flatten(1)))

def one():
    return Plain(1.0)

def two():
    return Plain(3.0)

def other():
    return one()

class Random(Plain):
    def forward(self, x):
        return nn.functional.dropout(super().forward(x), 0.5)

def drawn():
    return Random(1.0)
"""


def test_networks_of_the_same_weights_are_told_apart(tmp_path: Path) -> None:
    """By what they compute: plain attributes, and the code of `forward`, are in no weights."""
    file = tmp_path / "nets.py"
    file.write_text(PLAIN)
    one, again, two, other = (load_network(f"{file}:{name}") for name in ("one", "one", "two", "other"))
    assert one.digest == two.digest == other.digest
    assert one.identity == again.identity
    assert load_network(f"{file}:drawn").identity == load_network(f"{file}:drawn").identity
    assert len({one.identity, two.identity, other.identity}) == 3
    file.write_text(PLAIN.replace("functional.relu", "functional.gelu"))
    assert load_network(f"{file}:one").identity != one.identity
