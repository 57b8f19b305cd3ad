"""Networks: what is loaded, how pictures reach it, what is refused."""

import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from drawing import draw
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from dnnjpeg.models import Network, Preprocess, load_network  # noqa: E402

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
HEAD = f"""
import torch
from torch import nn

class Means(nn.Module):
    '''Four mixtures of the colours' means.'''

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(3, 4)
        self.norm = nn.BatchNorm2d(3)
        with torch.no_grad():
            self.fc.weight.copy_(torch.arange(12).reshape(4, 3) / 10)
            self.fc.bias.copy_(torch.arange(4))
        self.preprocess = dict(size=16, mean={MEAN}, std={STD})

    def forward(self, x):
        self.seen = x
        return self.fc(x.mean((2, 3)))
"""


@pytest.fixture
def make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Network]:
    """The network that the lines of a function return, `net` being a Means."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # one of the same second would be taken for the new

    def load(*lines: str, **options: object) -> Network:
        body = "\n    ".join(("net = Means()", *lines, "return net"))
        (tmp_path / "nets.py").write_text(f"{HEAD}\ndef tiny():\n    {body}\n")
        return load_network(f"{tmp_path / 'nets.py'}:tiny", **options)

    return load


# What is loaded


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
        ("json:tiny", "json:tiny is no function; there are dump, dumps, "),
        ("json:__version__", "json:__version__ is no function"),
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
        ("def other(): ...\ndef _own(): ...", "nets.py:tiny is no function; there are other$"),
        ("tiny = 3", "nets.py:tiny is no function; there are none"),
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
        ("dict(size=16, mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.8)", "crop is not a field"),
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


# Weights

STATE = {
    "fc.weight": torch.ones(4, 3),
    "fc.bias": torch.zeros(4),
    "norm.weight": torch.ones(3),
    "norm.bias": torch.zeros(3),
    "norm.running_mean": torch.zeros(3),
    "norm.running_var": torch.ones(3),
    "norm.num_batches_tracked": torch.tensor(0),
}


def save(path: Path, state: object) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".PTH"])
def test_weights_of_your_own(make: Callable[..., Network], tmp_path: Path, suffix: str) -> None:
    network = make(weights=save(tmp_path / f"own{suffix}", STATE))
    for key, value in network.module.state_dict().items():
        assert torch.equal(value, STATE[key]), key
    older = {key: value for key, value in STATE.items() if key != "norm.num_batches_tracked"}
    assert make(weights=save(tmp_path / f"older{suffix}", older)).digest == network.digest


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_do_not_fit(make: Callable[..., Network], tmp_path: Path, suffix: str) -> None:
    state = {**STATE, "head.weight": torch.ones(1), "fc.weight": torch.ones(5, 3)}
    del state["norm.bias"]
    file = save(tmp_path / f"own{suffix}", state)
    with pytest.raises(
        ValueError,
        match=r"the network's 7 tensors; 1 missing: \['norm.bias'\]; 1 unexpected: \['head.weight'\]; "
        r"1 of another shape: \['fc.weight'\]",
    ):
        make(weights=file)
    with pytest.raises(ValueError) as caught:
        make(weights=save(tmp_path / f"other{suffix}", {f"layer{i}": torch.ones(1) for i in range(999)}))
    assert "999 unexpected" in str(caught.value) and len(str(caught.value)) < 600


class Intruder:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("the pickle was executed",)


def test_files_that_hold_no_weights(make: Callable[..., Network], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"own\.pt holds \['epoch', 'state_dict'\], expected a state dict"):
        make(weights=save(tmp_path / "own.pt", {"epoch": 3, "state_dict": STATE}))
    with pytest.raises(ValueError, match=r"own\.pt holds 'list', expected a state dict"):
        make(weights=save(tmp_path / "own.pt", [1, 2]))
    for content in (b"", b"no weights"):
        for name in ("own.pt", "own.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name} cannot be read as a state dict"):
                make(weights=tmp_path / name)
    with pytest.raises(
        ValueError, match=r"own\.pt cannot be read as a state dict: it is damaged, or more than"
    ):
        make(weights=save(tmp_path / "own.pt", {"fc.weight": Intruder()}))
    with pytest.raises(ValueError, match=r"nets\.py cannot be read .* expected \.safetensors, \.pt or \.pth"):
        make(weights=tmp_path / "nets.py")
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(FileNotFoundError, match=name):
            make(weights=tmp_path / name)


def test_the_digest_is_of_the_weights_alone(make: Callable[..., Network]) -> None:
    digest = make().digest
    assert len(digest) == 16 and int(digest, 16) >= 0
    assert make("net.preprocess['size'] = 8").digest == digest
    assert make("net = net.to(memory_format=torch.channels_last)").digest == digest
    assert make("net._modules = dict(reversed(net._modules.items()))").digest == digest
    others = {
        make("net.fc.weight.data[0, 0] += 1e-6").digest,
        make("net.norm.running_mean[0] = 1").digest,
        make("net.fc.weight.data = net.fc.weight.data.flip(0)").digest,
        make("net.fc, net.norm, net.fb = nn.Identity(), net.norm, net.fc", "net.fc = net.fb").digest,
    }
    assert len(others) == 4 and digest not in others


# Pictures


def through(network: Network, picture: np.ndarray) -> np.ndarray:
    """Logits of a Means, by hand: Pillow resizes each colour as 32-bit floats."""
    size = (network.preprocess.size,) * 2
    planes = [
        Image.fromarray(picture[..., i].astype(np.float32)).resize(size, Image.Resampling.BILINEAR)
        for i in range(3)
    ]
    means = np.array([np.asarray(plane, np.float64).mean() for plane in planes])
    weight, bias = (x.double().numpy() for x in (network.module.fc.weight, network.module.fc.bias))
    return weight @ ((means / 255 - MEAN) / STD) + bias


@pytest.mark.parametrize(("width", "height"), [(16, 16), (40, 40), (37, 21), (9, 12), (1, 1)])
def test_pictures_are_resized_and_normalised(make: Callable[..., Network], width: int, height: int) -> None:
    network = make()
    picture = draw(width, height)
    (logits,) = network.read(picture[None])
    np.testing.assert_allclose(logits, through(network, picture), atol=1e-4)
    assert network.module.seen.shape == (1, 3, 16, 16)
    assert network.module.seen.is_contiguous(memory_format=torch.channels_last)


def test_reading_is_calling(make: Callable[..., Network]) -> None:
    network = make()
    pictures = np.stack([draw(16, 16, seed=i) for i in range(7)])
    pictures.setflags(write=False)
    logits = network(torch.tensor(pictures).permute(0, 3, 1, 2).double())
    assert logits.dtype == torch.float32 and logits.shape == (7, 4)
    for batch in (1, 3, 7, 50):
        read = network.read(pictures, batch=batch)
        assert read.dtype == np.float32
        np.testing.assert_allclose(read, logits.numpy(), atol=1e-5)
        np.testing.assert_array_equal(network.read(list(pictures), batch=batch), read)


def test_the_gradient_reaches_the_pixels(make: Callable[..., Network]) -> None:
    network = make()
    network.read(np.zeros((1, 30, 20, 3), np.uint8))  # leaves nothing behind that has no gradient
    for shape in ((2, 3, 16, 16), (2, 3, 32, 48)):
        pixels = torch.full(shape, 100.0, requires_grad=True)
        network(pixels)[:, 1].sum().backward()
        each = network.module.fc.weight[1] / (255 * torch.tensor(STD))  # of a colour's mean
        torch.testing.assert_close(pixels.grad.sum((2, 3)), each.expand(2, 3))
        assert network.module.fc.weight.grad is None


def test_autocast_is_honoured(make: Callable[..., Network]) -> None:
    network = make("net.fc.register_forward_hook(lambda m, i, o: setattr(net, 'inner', o.dtype))")
    pixels = torch.rand(2, 3, 24, 24) * 255
    exact = network(pixels)
    with torch.autocast("cpu", torch.bfloat16):
        rough = network(pixels)
    assert network.module.inner == torch.bfloat16 and rough.dtype == torch.float32
    torch.testing.assert_close(rough, exact, atol=0.1, rtol=0.02)


@pytest.mark.parametrize(
    ("pictures", "message"),
    [
        (np.zeros((0, 16, 16, 3), np.uint8), "pictures is empty"),
        ([], "pictures is empty"),
        (
            np.zeros((2, 16, 16, 3), np.float32),
            r"pictures are float32 \(16, 16, 3\), expected uint8 H x W x 3",
        ),
        (np.zeros((2, 3, 16, 16), np.uint8), r"pictures are uint8 \(3, 16, 16\)"),
        (np.zeros((16, 16, 3), np.uint8), r"pictures are uint8 \(16, 3\)"),
        ([np.zeros((16, 16, 3), np.uint8), np.zeros((16, 17, 3), np.uint8)], "same shape"),
    ],
)
def test_pictures_of_another_form(make: Callable[..., Network], pictures: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make().read(pictures)


def test_logits_that_are_not_finite_name_the_picture(make: Callable[..., Network]) -> None:
    network = make(
        "net.fc.register_forward_hook(lambda m, i, o: torch.where(i[0][:, :1] > 2, o * float('inf'), o))"
    )
    pictures = np.zeros((5, 16, 16, 3), np.uint8)
    network.read(pictures)
    pictures[3] = 255
    with pytest.raises(ValueError, match="tiny returns NaN or infinity for picture 3"):
        network.read(pictures, batch=2)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("o * float('nan')", "tiny returns NaN or infinity for picture 0"),
        ("o[0]", r"tiny returns \(4,\) for 2 pictures, expected N x classes"),
        ("o[:1]", r"tiny returns \(1, 4\) for 2 pictures"),
        ("o[..., None, None]", r"tiny returns \(2, 4, 1, 1\) for 2 pictures"),
        ("(o, o)", "tiny returns tuple for 2 pictures"),
        ("{'logits': o}", "tiny returns dict for 2 pictures"),
        ("o[:, :1]", "it returns one value, expected a logit for each class"),
        ("o.softmax(1)", "it returns probabilities, expected logits"),
        ("o @ o", "RuntimeError: mat1 and mat2 shapes cannot be multiplied"),
    ],
)
def test_a_network_that_makes_no_logits(make: Callable[..., Network], output: str, message: str) -> None:
    with pytest.raises(ValueError, match=rf"tiny cannot read a picture of 16 x 16: {message}"):
        make(f"net.register_forward_hook(lambda m, i, o: {output})")


def test_log_probabilities_are_logits(make: Callable[..., Network]) -> None:
    logits = make("net.register_forward_hook(lambda m, i, o: o.log_softmax(1))").read(draw(16, 16)[None])
    assert math.isclose(np.exp(logits).sum(), 1, rel_tol=1e-5)


def test_a_real_network_is_as_good_as_published(data_dir: Path) -> None:
    zoo, pictures = data_dir.parent / "models" / "zoo.py", data_dir / "cifar10" / "test_0000.png"
    if not (zoo.exists() and pictures.exists()):
        pytest.skip(f"{data_dir.parent} has no models/zoo.py or no data/cifar10")
    network = load_network(f"{zoo}:cifar_resnet20")
    rows = np.asarray(Image.open(pictures)).reshape(-1, 32, 32, 3)
    right = network.read(rows).argmax(axis=1) == np.load(data_dir / "cifar10" / "test_labels.npy")
    assert right.mean() == pytest.approx(0.915, abs=0.001)
