"""The frozen JPEG layer against the layer, in torch and in what it is exported to."""

import io
from pathlib import Path

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from tiny import layer_pixels as pixels  # noqa: E402
from tiny import layer_steps as steps  # noqa: E402

from dnnjpeg.learn.jpegdl import JPEGLayer  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402


@pytest.mark.parametrize("levels", [None, 15])
def test_frozen_is_hard(levels: int | None) -> None:
    for rounds, height, width in ((1, 32, 32), (1, 13, 27), (2, 16, 32)):
        layer = JPEGLayer(steps(tables=3), levels=levels, rounds=rounds)
        layer.form = "hard"
        given = pixels(20, height, width)
        apart = (layer.frozen()(given) - layer(given)).abs() > 1e-3
        assert apart.float().mean() < 0.01  # where a coefficient lies between two indices
    layer = JPEGLayer.from_point(standard_table().at(50))
    with pytest.raises(ValueError, match="subsampling is 4:2:0, expected 4:4:4"):
        layer.frozen()


def test_frozen_stands_where_the_layer_does() -> None:
    layer = JPEGLayer(steps()).double()
    layer.form = "hard"
    given = pixels(3)
    assert ((layer.frozen()(given) - layer(given)).abs() > 1e-3).float().mean() < 0.01
    assert {tensor.device.type for tensor in layer.to("meta").frozen().buffers()} == {"meta"}


def test_frozen_can_be_exported() -> None:
    frozen = JPEGLayer(steps(), levels=255).frozen()
    batch, rows, columns = (torch.export.Dim(name, min=2, max=64) for name in ("batch", "rows", "columns"))
    sizes = {"pixels": {0: batch, 2: 8 * rows, 3: 8 * columns}}
    program = torch.export.export(frozen, (pixels(4),), dynamic_shapes=sizes)
    file = io.BytesIO()
    torch.export.save(program, file)
    file.seek(0)
    again = torch.export.load(file).module()
    torch.testing.assert_close(again(pixels(2, 24, 16)), frozen(pixels(2, 24, 16)))
    names = {str(node.target) for node in program.graph.nodes if node.op == "call_function"}
    assert not any("dnnjpeg" in name for name in names)


@pytest.mark.filterwarnings("ignore:.isinstance.treespec:FutureWarning")  # torch's own
def test_frozen_in_onnx(tmp_path: Path) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    frozen = JPEGLayer(steps(), levels=31, rounds=2).frozen()
    free = torch.export.Dim.DYNAMIC
    file = str(tmp_path / "jpeg.onnx")
    torch.onnx.export(frozen, (pixels(2, 13, 27),), file, dynamic_shapes=({0: free, 2: free, 3: free},))
    session = runtime.InferenceSession(file, providers=["CPUExecutionProvider"])
    for count, height, width in ((2, 13, 27), (1, 32, 16), (3, 9, 31)):
        given = pixels(count, height, width)
        (found,) = session.run(None, {"pixels": given.numpy()})
        apart = np.abs(found - frozen(given).numpy()) > 1e-4
        assert apart.mean() < 0.01  # where a coefficient lies between two indices
