"""Networks that are ONNX files, and views that are no square crops."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

from onnx import TensorProto, helper  # noqa: E402

from dnnjpeg.files.view import View  # noqa: E402
from dnnjpeg.networks.load import load_network  # noqa: E402
from dnnjpeg.networks.onnx_files import external_files  # noqa: E402

WHOLE = {"size": 16, "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.25, 0.3], "fit": "whole"}
CROP = {name: value for name, value in WHOLE.items() if name != "fit"}


def save(path: Path, node: str = "Relu", shape: tuple[Any, ...] = ("n", 3, "h", "w"), **settings: Any) -> str:
    """A network: `map` is a function of its input `x`, or with `two` the sum of `x` and of all `ids`."""
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)]
    output = helper.make_tensor_value_info("map", TensorProto.FLOAT, [None] * 4)
    graph = helper.make_graph([helper.make_node(node, ["x"], ["map"])], "g", inputs, [output])
    if settings.pop("two", False):
        inputs.append(helper.make_tensor_value_info("ids", TensorProto.FLOAT, (1, 1, 1, 2)))
        nodes = [helper.make_node("ReduceSum", ["ids"], ["s"]), helper.make_node("Add", ["x", "s"], ["map"])]
        graph = helper.make_graph(nodes, "g", inputs, [output])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    if settings:
        path.with_suffix(".json").write_text(json.dumps(settings))
    return str(path)


def normalised(picture: np.ndarray) -> np.ndarray:
    return ((picture / 255 - WHOLE["mean"]) / WHOLE["std"]).transpose(2, 0, 1)


def pictures(*sizes: tuple[int, int]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (*size, 3), np.uint8) for size in sizes]


def test_pictures_are_read_whole_at_their_own_size(tmp_path: Path) -> None:
    network = load_network(save(tmp_path / "net.onnx", preprocess=WHOLE, task="dense"), threads=1)
    assert network.name == "net.onnx" and not network.is_differentiable
    some = pictures((32, 48), (16, 16), (32, 48), (30, 41))
    found = network.read(some)
    for picture, one in zip(some[:3], found[:3], strict=True):
        np.testing.assert_allclose(one, np.maximum(normalised(picture), 0), atol=1e-5)
    resized = Image.fromarray(some[3]).resize((48, 32), Image.Resampling.BICUBIC)
    np.testing.assert_allclose(found[3], np.maximum(normalised(np.asarray(resized)), 0), atol=1e-5)
    equal = network.read([some[0], some[2]])
    assert isinstance(equal, np.ndarray) and equal.shape == (2, 3, 32, 48)


def test_settings(tmp_path: Path) -> None:
    settings = {"preprocess": CROP, "task": "dense", "channels": "bgr", "inputs": {"ids": [[[[1, 2]]]]}}
    (some,) = pictures((16, 16))
    network = load_network(save(tmp_path / "net.onnx", two=True, **settings))
    np.testing.assert_allclose(network.read([some])[0], normalised(some)[::-1] + 3, atol=1e-5)
    fixed = load_network(save(tmp_path / "one.onnx", shape=(1, 3, 16, 16), preprocess=CROP, task="dense"))
    assert fixed.read(pictures((16, 16), (16, 16), (20, 20))).shape == (3, 3, 16, 16)
    assert fixed.digest != network.digest and fixed.identity != network.identity


def test_settings_in_yaml(tmp_path: Path) -> None:
    pytest.importorskip("yaml")
    spec = save(tmp_path / "net.onnx")
    (tmp_path / "net.yaml").write_text(f"preprocess: {json.dumps(WHOLE)}\ntask: dense\n")
    assert load_network(spec).preprocess.fit == "whole"


def save_external(folder: Path, factor: float) -> str:
    """A network whose map is `factor` times its input. The factors lie in net.onnx.data."""
    folder.mkdir(exist_ok=True)
    spec = save(folder / "net.onnx", preprocess=WHOLE, task="dense")
    model = onnx.load(spec)
    model.graph.node[0].CopyFrom(helper.make_node("Mul", ["x", "f"], ["map"]))
    factors = np.full((1, 3, 1, 1), factor, np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(factors, "f"))
    onnx.save(model, spec, save_as_external_data=True, location="net.onnx.data", size_threshold=0)
    return spec


def test_external_data_belong_to_the_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    specs = {factor: save_external(tmp_path / str(factor), factor) for factor in (2.0, 3.0)}
    (some,) = pictures((16, 16))
    digests = set()
    for here in (tmp_path, tmp_path / "2.0", tmp_path / "3.0"):
        monkeypatch.chdir(here)
        for factor, spec in specs.items():
            network = load_network(spec)
            np.testing.assert_allclose(network.read([some])[0], factor * normalised(some), atol=1e-5)
            digests.add((factor, network.digest))
    assert len(digests) == len({digest for _, digest in digests}) == 2
    monkeypatch.chdir(tmp_path / "2.0")
    assert load_network("net.onnx").digest in dict(digests).values()
    (tmp_path / "2.0" / "net.onnx.data").unlink()
    with pytest.raises(ValueError, match=r"net\.onnx cannot be used: .*net\.onnx\.data"):
        load_network("net.onnx")


def test_external_data_are_found_wherever_a_tensor_may_stand() -> None:
    def tensor(name: str) -> onnx.TensorProto:
        entries = {"offset": "0", "location": f"{name}.ü", "length": "4"}
        return TensorProto(
            dims=[1], data_location=TensorProto.EXTERNAL,
            external_data=[onnx.StringStringEntryProto(key=key, value=text) for key, text in entries.items()],
        )  # fmt: skip

    def sparse(name: str) -> onnx.SparseTensorProto:
        return onnx.SparseTensorProto(values=tensor(f"{name}1"), indices=tensor(f"{name}2"))

    def graph(name: str, *nodes: onnx.NodeProto) -> onnx.GraphProto:
        return onnx.GraphProto(
            node=nodes, initializer=[tensor(f"{name}1")], sparse_initializer=[sparse(f"{name}s")]
        )

    attributes = [
        onnx.AttributeProto(f=1.5, t=tensor("t"), g=graph("g"), sparse_tensor=sparse("s")),
        onnx.AttributeProto(
            ints=[-1], tensors=[tensor("ts")], graphs=[graph("h")], sparse_tensors=[sparse("ss")]
        ),
    ]
    model = onnx.ModelProto(
        graph=graph("main", onnx.NodeProto(attribute=attributes)),
        training_info=[onnx.TrainingInfoProto(initialization=graph("i"), algorithm=graph("a"))],
        functions=[
            onnx.FunctionProto(
                node=[onnx.NodeProto(attribute=[onnx.AttributeProto(t=tensor("f"))])],
                attribute_proto=[onnx.AttributeProto(t=tensor("fa"))],
            )
        ],
    )
    names = ["f", "fa", "s1", "s2", "ss1", "ss2", "t", "ts"]
    names += [f"{name}{rest}" for name in ("main", "g", "h", "i", "a") for rest in ("1", "s1", "s2")]
    data = model.SerializeToString()
    assert external_files(data) == sorted(f"{name}.ü" for name in names)
    for damaged in (b"", b"no network", b"\xff" * 1000, data[:40]):
        assert isinstance(external_files(damaged), list)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")  # torch's own
def test_a_network_as_torch_exports_it(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    module = torch.nn.Sequential(torch.nn.Conv2d(3, 64, 3, padding=1), torch.nn.Conv2d(64, 128, 3)).eval()
    spec, some = tmp_path / "net.onnx", torch.randn(2, 3, 16, 16)
    torch.onnx.export(module, (some,), spec, dynamo=True, external_data=True, verbose=False)
    assert (tmp_path / "net.onnx.data").exists()
    (tmp_path / "net.json").write_text(json.dumps({"preprocess": CROP, "task": "dense"}))
    with torch.no_grad():
        torch.testing.assert_close(load_network(str(spec)).module(some), module(some), atol=1e-4, rtol=1e-4)


def test_a_name_that_is_not_utf_8(tmp_path: Path) -> None:
    network = load_network(save(tmp_path / "net\udcff.onnx", preprocess=WHOLE, task="dense"))
    assert network.name == "net\\udcff.onnx"


@pytest.mark.parametrize(
    ("made", "message"),
    [
        ({}, "there are no settings beside .*net.onnx: write .*net.yaml"),
        ({"task": "dense"}, "net.json: preprocess is missing"),
        ({"preprocess": CROP, "tasks": "dense"}, "net.json: 'tasks' is not a field of a network"),
        ({"preprocess": CROP, "channels": "rbg"}, "channels is 'rbg', expected rgb or bgr"),
        ({"preprocess": CROP, "task": "dense", "outputs": ["y"]}, "there is no output y. Outputs: map"),
        ({"preprocess": CROP, "task": "dense", "two": True}, "inputs are x, ids: say which one"),
        ({"preprocess": CROP, "task": "dense", "two": True, "input": "x"}, "input ids .* has no value"),
        (
            {"preprocess": CROP, "task": "dense", "two": True, "inputs": {"ids": [1]}},
            r"the input ids is \(1,\) in `inputs`, expected",
        ),
        (
            {"preprocess": CROP, "task": "dense", "shape": ("n", 3, 32, 32)},
            "the input is 32 x 32, and the preprocessing gives 16 x 16",
        ),
        (
            {"preprocess": CROP, "task": "dense", "shape": ("n", 3)},
            "the input x is .* expected float",
        ),
        ({"preprocess": WHOLE}, r"net.onnx returns \(2, 3, 224, 224\) for 2 pictures, expected N x classes"),
    ],
)
def test_what_is_wrong_is_named(made: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message):
        load_network(save(tmp_path / "net.onnx", **made))


def test_what_is_missing_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    spec = save(tmp_path / "net.onnx", preprocess=WHOLE, task="dense")
    import onnxruntime

    if "CUDAExecutionProvider" not in onnxruntime.get_available_providers():
        with pytest.raises(ValueError, match="device is cuda, and onnxruntime has no provider for it"):
            load_network(spec, device="cuda")
    with pytest.raises(ValueError, match="leave out weights"):
        load_network(spec, weights="w.pt")
    (tmp_path / "net.onnx").write_bytes(b"no network")
    with pytest.raises(ValueError, match=r"net\.onnx cannot be used"):
        load_network(spec)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"needs onnxruntime: pip install 'dnnjpeg\[onnx\]'"):
        load_network(spec)


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(60, 40), (41, 83), (32, 32), (20, 9)])
@pytest.mark.parametrize("fit", ["letterbox", "whole"])
def test_views_for_gradients_are_those_of_pillow(
    fit: str, width: int, height: int, interpolation: str
) -> None:
    view = View(32, None, interpolation, fit)
    y, x = np.mgrid[0:height, 0:width]
    picture = (120 + 60 * np.sin(x / 7) + 40 * np.cos(y / 5))[..., None].repeat(3, 2).astype(np.uint8)
    down, across = view.matrices(width, height)
    found = down @ picture[..., 0] @ across.T + view.border(width, height)
    shown = view.of(picture)
    assert shown.shape[:2] == view.shape(width, height) == found.shape
    assert np.abs(found - shown[..., 0]).max() < 1.01


def test_a_letterbox_keeps_proportions() -> None:
    shown = View(32, fit="letterbox").of(np.full((20, 40, 3), 200, np.uint8))
    assert (shown[8:24] == 200).all() and (shown[:8] == 114).all() and (shown[24:] == 114).all()
