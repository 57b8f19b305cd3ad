"""Encoding to a target: arguments that are refused before any network is asked."""

import numpy as np
import pytest
from drawing import draw
from PIL import Image

from dnnjpeg import encode, encode_to_target

PICTURES = [draw(72, 56, seed) for seed in range(2)]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "exactly one of keep, target_bytes and target_bpp, 0 are given"),
        (
            {"keep": "top1", "target_bytes": 9},
            "target_bytes and target_bpp, 2 are given",
        ),
        ({"keep": "top1"}, "networks and keep go together"),
        ({"networks": ["one"], "target_bpp": 1}, "networks and keep go together"),
        ({"networks": "one", "keep": "top1"}, "networks is 'one', expected a list"),
        ({"target_bytes": 0}, "target_bytes is 0"),
        ({"target_bytes": 1.5}, "target_bytes is 1.5"),
        ({"target_bpp": 0}, "target_bpp is 0"),
        ({"target_bpp": float("nan")}, "target_bpp is nan"),
        ({"target_bytes": 999, "abbreviated": True}, "abbreviated is True, .* leave out abbreviated"),
        ({"target_bytes": 999, "table": "none such"}, "none such"),
        ({"target_bytes": 999, "threads": 0}, "threads"),
        ({"target_bytes": 999, "prune": True}, "prune"),
        ({"target_bytes": 999, "adaptive": True}, "adaptive is True, .* own quality: leave out adaptive"),
        ({"target_bpp": 1, "adaptive": True}, "leave out adaptive"),
        ({"networks": ["one"], "keep": "top1", "adaptive": True}, "leave out adaptive"),
    ],
)
def test_wrong_targets(options, message):
    with pytest.raises(ValueError, match=message):
        encode_to_target(PICTURES[:1], **options)


def test_unknown_options():
    for name in ("mode", "qualty"):
        with pytest.raises(TypeError, match=f"no option is named '{name}', expected adaptive, hardness"):
            encode_to_target(PICTURES[:1], target_bytes=999, **{name: "BGR"})


def test_no_pictures_and_wrong_pictures():
    with pytest.raises(TypeError, match="float"):
        encode_to_target([PICTURES[0] / 255], target_bytes=999)
    for one in (PICTURES[0], Image.fromarray(PICTURES[0])):
        with pytest.raises(TypeError, match="images is one picture"):
            encode_to_target(one, target_bytes=999)
    assert encode_to_target(np.stack(PICTURES[:2]), target_bytes=999) == encode_to_target(
        PICTURES[:2], target_bytes=999
    )
    grey = PICTURES[0][..., :1]
    assert encode_to_target([grey], target_bytes=999) == encode_to_target([grey[..., 0]], target_bytes=999)
    with pytest.raises(TypeError, match="str"):
        encode_to_target(["a.png"], target_bytes=999)
    with pytest.raises(ValueError, match="images is None, expected a list of pictures"):
        encode_to_target(None, target_bytes=999)


@pytest.mark.parametrize(
    ("metadata", "message"),
    [
        ([{}], "metadata has 1 entries, expected one for each of 2 images"),
        ([], "metadata has 0 entries, expected one for each of 2 images"),
        ([{}] * 3, "metadata has 3 entries, expected one for each of 2 images"),
        ({"comment": b"x"}, "metadata is {'comment': b'x'}, expected a list of mappings, one for each image"),
        ([{}, None], r"metadata\[1\] is None, expected a mapping, as {'comment': b'...'}"),
        ([b"x", b"y"], r"metadata\[0\] is b'x', expected a mapping"),
    ],
)
def test_wrong_metadata(metadata, message):
    with pytest.raises(ValueError, match=message):
        encode_to_target(PICTURES[:2], target_bytes=999, metadata=metadata)


@pytest.mark.parametrize("name", ["exif", "xmp", "icc_profile"])
def test_jpeg_files_keep_their_own_metadata(name: str) -> None:
    data = encode(np.zeros((16, 16, 3), np.uint8))
    with pytest.raises(ValueError, match=f"{name} is given, and a JPEG file among the images keeps its own"):
        encode_to_target([data], target_bytes=900, **{name: b"Exif\0\0"})
    (found,) = encode_to_target([data], target_bytes=900, comment=b"mine")
    assert b"mine" in found.data
