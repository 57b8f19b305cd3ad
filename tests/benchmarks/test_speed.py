"""The benchmarks of time and memory, on a few pictures."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest
from drawing import draw
from PIL import Image


def first_cells(table: str) -> list[str]:
    """Of the rows of Markdown tables."""
    return [line.split("|")[1].strip() for line in table.splitlines() if line]


@pytest.fixture
def photographs(tmp_path: Path) -> Path:
    """Where encode.py looks for them: one of each size."""
    photos = tmp_path / "data" / "photos"
    (photos / "web").mkdir(parents=True)
    Image.fromarray(draw(500, 375)).save(photos / "web" / "one.jpg")
    Image.fromarray(draw(300, 300)).save(photos / "web" / "two.jpg")
    Image.fromarray(draw(768, 512)).save(photos / "kodim01.png")
    return tmp_path


def test_encode(run, written, photographs) -> None:
    for package in ("cv2", "jpeglib", "pyjpegli", "simplejpeg"):
        pytest.importorskip(package)
    table = run("encode.py", "--seconds", "0", "--only", "500x375", data=photographs)
    found = written("encode")
    assert found["pictures"] == "photographs"
    assert list(found["groups"]) == ["500x375"]
    assert found["groups"]["500x375"]["pictures"] == 1
    encoders = found["groups"]["500x375"]["encoders"]
    assert encoders.keys() > {"Pillow", "Pillow, optimize", "dnnjpeg", "dnnjpeg, progressive", "OpenCV"}
    assert encoders["Pillow"]["speed_over_pillow"] == encoders["Pillow"]["size_over_pillow"] == 1
    for row in encoders.values():
        assert 0 < row["milliseconds"] < 10_000
        assert 0.8 < row["size_over_pillow"] < 1.2
    assert "500x375" in table.splitlines()[0]
    assert first_cells(table)[2:] == list(encoders)


@pytest.mark.slow
def test_stages(run, written, photographs) -> None:
    """The stages are those of an encoder, so what costs more at a higher quality is seen."""
    told = run("stages.py", "--rounds", "1", data=photographs)
    cases = written("stages")["nanoseconds a block"]
    assert list(cases) == [*(f"quality {q}" for q in (1, 50, 75, 90)), "75, hardness 30", "75, hardness 15"]
    for case in cases.values():
        *parts, total = case.values()
        assert all(0 < value < 10_000 for value in parts)
        assert sum(parts) == pytest.approx(total, abs=0.5)
    assert cases["quality 1"]["tokens"] < cases["quality 90"]["tokens"]
    assert first_cells(told)[2:] == list(cases["quality 1"])


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="only Linux tells the most memory held")
def test_memory(run, written) -> None:
    told = run("memory.py", "--megapixels", "2", "--files", "30")
    found = written("memory")["megabytes"]
    pictures = [
        f"2 megapixels{way}, {jobs}"
        for way in ("", ", progressive", ", hardness 15")
        for jobs in ("1 thread", "2 threads")
    ]
    folders = [f"{n} files of 500x375, 2 jobs" for n in (20, 30)]
    worker = [f"{folders[1]}: a worker"]  # where the program forks
    assert list(found) in ([*pictures, *folders], [*pictures, *folders, *worker])
    assert all(6 < megabytes < 1000 for megabytes in found.values())  # the picture alone is 6
    for (name, megabytes), line in zip(found.items(), told.splitlines(), strict=True):
        assert re.fullmatch(rf"{name} +{megabytes} MB", line)


@pytest.mark.slow
def test_startup(run, written) -> None:
    told = run("startup.py", "--rounds", "1")
    found = written("startup")["results"]
    once, cold = (
        found[f"{what}, wall seconds"]
        for what in ("dnnjpeg encode one.jpg", "the same with nothing compiled")
    )
    assert 0 < found["bare python, seconds"]["median"] < once["median"] < cold
    assert 0 < found["import dnnjpeg, seconds more"]["median"] < once["median"]
    assert found["import dnnjpeg, heavy modules loaded"] == []
    assert found["the same with nothing compiled, standard error"].startswith("compiling")
    assert [line.partition(": ")[0] for line in told.splitlines()] == list(found)


@pytest.mark.slow
def test_layer(run, written) -> None:
    pytest.importorskip("torch")
    told = run("layer.py", "--turns", "1", "--batch", "2", "--size", "16")
    found = written("layer")
    assert (found["batch"], found["size"]) == (2, 16)
    by_layer = found["milliseconds a step"]
    assert list(by_layer) == ["kappa 5", "kappa 1", "alpha 5, 255 levels"]
    for numbers in by_layer.values():
        assert 1 <= numbers.pop("kept for backward, of the pictures in float32") < 100
        for precision in ("float32", "bfloat16"):
            without, with_ = (numbers.pop(f"{precision}, {which}") for which in ("without", "with"))
            overhead = numbers.pop(f"{precision}, overhead, %")
            assert min(without, with_) > 0
            assert overhead == pytest.approx(100 * (with_ / without - 1), abs=0.1)
        assert numbers.pop("layer alone") > 0
        assert not numbers
    assert [line.partition(": ")[0] for line in told.splitlines()] == list(by_layer)


@pytest.mark.slow
def test_sparse(run, written, root) -> None:
    """Layers, networks and what was published go to one file, which is shown."""
    layer, network = "32x16x16->32 3x3", "mobilenet_v1_075"
    run("sparse.py", "layers", "--seconds", "0", "--only", layer)
    run("sparse.py", "networks", "--seconds", "0", "--only", network, data=root)
    run("sparse.py", "published", "--seconds", "0", "--only", layer)
    found = written("sparse")
    by_zeros = found["layers"]["1"][layer]
    assert [float(zeros) for zeros in by_zeros] == sorted(map(float, by_zeros))
    for item in by_zeros.values():
        assert item["milliseconds"].keys() > {"torch", "channels_last", "prepacked", "im2col", "mec"}
        assert all(0 < value < 1000 for value in item["milliseconds"].values())
        assert 0 <= item["difference"] < 1e-4
        assert item["elements"]["im2col"] == 32 * 9 * 16 * 16
        assert all(0 < value <= 32 * 9 * 16 * 16 for value in item["elements"].values())
    for item in found["published"][layer].values():
        assert item.keys() == by_zeros["0.5"].keys()
        assert {"cpo", "cps"} <= item["milliseconds"].keys() & item["bytes"].keys()
        assert all(0 < value < 1000 for value in item["milliseconds"].values())
        assert item["bytes"]["im2col"] == 4 * 32 * 9 * 16 * 16
    item = found["networks"]["1"][network]
    peers = {"eager", "eager_channels_last", "compiled", "onnxruntime", "openvino"}
    missing = {name for name in ("onnxruntime", "openvino") if find_spec(name) is None}
    assert item["milliseconds"].keys() == (peers - missing) | {"plan"}
    assert all(0 < value < 1000 for value in item["milliseconds"].values())
    assert 0 <= item["difference"] <= 1e-3
    assert len(item["report"]["layers"]) == 2
    shown = run("sparse.py", "show")
    assert found["machine"]["cpu"] in shown
    assert {layer, f"{network}, 1 thread", f"{layer}, 50% zeros"} < set(first_cells(shown))
    assert "CPO, published" in shown
