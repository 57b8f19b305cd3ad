"""The transform for training."""

import io
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from drawing import draw
from PIL import Image

import dnnjpeg
from dnnjpeg.table.library import standard_table

torch = pytest.importorskip("torch")

from dnnjpeg.plugins.transforms import JPEG, encode_batch  # noqa: E402

PIXELS = np.stack([draw(64, 48, seed) for seed in range(4)])
TENSOR = torch.tensor(PIXELS).permute(0, 3, 1, 2)


def through(pixels: Any, table: Any, quality: int, **options: Any) -> np.ndarray:
    data = dnnjpeg.encode(pixels, table, quality, **options)
    return np.asarray(Image.open(io.BytesIO(data)))


def test_tensors_of_any_batch_shape() -> None:
    expected = np.stack([through(one, "universal", 40) for one in PIXELS])
    jpeg = JPEG("universal", 40)
    for shape in ([4], [2, 2], [4, 1]):
        found = jpeg(TENSOR.reshape(*shape, 3, 48, 64))
        assert found.dtype == torch.uint8
        assert list(found.shape) == [*shape, 3, 48, 64]
        assert (found.reshape(4, 3, 48, 64).permute(0, 2, 3, 1).numpy() == expected).all()
    assert (jpeg(TENSOR[0]).permute(1, 2, 0).numpy() == expected[0]).all()
    gray = jpeg(TENSOR[0, :1])
    assert (gray[0].numpy() == through(PIXELS[0][..., 0], "universal", 40)).all()
    assert jpeg(TENSOR[:0]).shape == (0, 3, 48, 64)


def test_pil_and_albumentations() -> None:
    jpeg = JPEG("universal", 40)
    expected = through(PIXELS[0], "universal", 40)
    assert (np.asarray(jpeg(Image.fromarray(PIXELS[0]))) == expected).all()
    gray = jpeg(Image.fromarray(PIXELS[0]).convert("L"))
    assert gray.mode == "L"
    mask = object()
    found = jpeg(image=PIXELS[0], mask=mask)
    assert found.keys() == {"image", "mask"}
    assert (found["image"] == expected).all()
    assert found["mask"] is mask


def test_a_subclass_stays_one() -> None:
    class Mine(torch.Tensor): ...

    assert type(JPEG()(TENSOR[0].as_subclass(Mine))) is Mine


def test_qualities_are_drawn_from_all_of_the_range() -> None:
    torch.manual_seed(0)
    jpeg = JPEG("standard", (30, 32))
    candidates = {q: through(PIXELS[0], "standard", q) for q in range(30, 33)}
    counts = dict.fromkeys(candidates, 0)
    for _ in range(60):
        found = jpeg(image=PIXELS[0])["image"]
        (quality,) = (q for q, pixels in candidates.items() if (pixels == found).all())
        counts[quality] += 1
    assert min(counts.values()) >= 8  # of 20 on average


def test_torchs_seed_decides() -> None:
    def run(seed: int) -> Any:
        torch.manual_seed(seed)
        return JPEG("universal", (5, 95))(TENSOR[0])

    assert (run(1) == run(1)).all()
    assert any((run(seed) != run(1)).any() for seed in range(2, 6))


class Pictures(torch.utils.data.Dataset):  # type: ignore[type-arg]
    jpeg = JPEG("universal", (1, 100))

    def __len__(self) -> int:
        return 8

    def __getitem__(self, i: int) -> Any:
        return self.jpeg(TENSOR[0])


def test_workers_draw_their_own() -> None:
    """Two workers, that have one state before they start."""
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        Pictures(), batch_size=4, num_workers=2, multiprocessing_context="fork"
    )
    one, other = loader
    assert (one != other).any()


def test_the_probabilistic_quantizer_draws_anew() -> None:
    torch.manual_seed(0)
    free = JPEG("standard", 30, hardness=1.0)
    assert (free(TENSOR[0]) != free(TENSOR[0])).any()
    fixed = JPEG("standard", 30, hardness=1.0, seed=7)
    expected = through(PIXELS[0], "standard", 30, hardness=1.0, seed=7)
    assert (fixed(TENSOR[0]).permute(1, 2, 0).numpy() == expected).all()


@pytest.mark.parametrize(
    "arguments",
    [
        {"quality": 0},
        {"quality": (50,)},
        {"quality": (50, 101)},
        {"quality": (60, 50)},
        {"quality": "50"},
        {"quality": 50.5},
        {"table": "resnet5000"},
        {"subsampling": "4:2:1"},
    ],
)
def test_wrong_arguments_raise_at_once(arguments: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        JPEG(**arguments)


@pytest.mark.parametrize(
    "picture", [TENSOR[0].float(), TENSOR[0, 0], torch.zeros(4, 8, 8, dtype=torch.uint8), PIXELS[0], None]
)
def test_wrong_pictures_raise(picture: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        JPEG()(picture)


def test_it_is_a_module() -> None:
    jpeg = pickle.loads(pickle.dumps(JPEG(standard_table(), (20, 40))))
    assert (
        repr(torch.nn.Sequential(jpeg)).splitlines()[1] == "  (0): JPEG(table='standard', quality=(20, 40))"
    )
    assert torch.nn.Sequential(JPEG("universal", 40))(TENSOR).shape == TENSOR.shape


def test_torchvision_is_not_needed() -> None:
    code = "import sys; sys.modules['torchvision'] = None; import dnnjpeg.plugins.transforms"
    subprocess.run([sys.executable, "-c", code], check=True)
    assert encode_batch(TENSOR, "universal", 40)[0] == dnnjpeg.encode(PIXELS[0], "universal", 40)


def test_the_default_table() -> None:
    jpeg = JPEG(quality=40)
    assert repr(jpeg) == "JPEG(table='universal', quality=(40, 40))"
    assert torch.equal(jpeg(TENSOR), JPEG("universal", 40)(TENSOR))


def test_what_would_come_back_in_other_colours_is_refused() -> None:
    jpeg = JPEG(quality=95)
    for mode in ("CMYK", "RGBA", "YCbCr", "1", "P"):
        with pytest.raises(ValueError, match=f"mode {mode}, expected L or RGB"):
            jpeg(Image.new(mode, (16, 16)))
    for options in ({"mode": "BGR"}, {"abbreviated": True}):
        with pytest.raises(ValueError, match="leave it out"):
            JPEG(quality=95, **options)
    array = PIXELS[0][..., :1]
    assert jpeg(image=array)["image"].shape == array.shape
