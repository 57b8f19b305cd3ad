"""Braces and kinds of shards."""

import pytest

from dnnjpeg.shards.names import PARQUET, TAR, expand, kind_of, name_of


def test_braces() -> None:
    assert expand("a.tar") == ["a.tar"]
    assert expand("s/{008..011}.tar") == [f"s/{i}.tar" for i in ("008", "009", "010", "011")]
    assert expand("{8..10}") == ["8", "9", "10"]
    assert expand("{train,val}/x{0..1}.tar") == ["train/x0.tar", "train/x1.tar", "val/x0.tar", "val/x1.tar"]


@pytest.mark.parametrize(
    "pattern", ["{}.tar", "{3..1}.tar", "{a..b}.tar", "{0..9999999}.tar", "{0..9999}{0..9999}"]
)
def test_bad_braces(pattern: str) -> None:
    with pytest.raises(ValueError, match=r"\{"):
        expand(pattern)


def test_kinds() -> None:
    names = ["s3://b/x.TAR", "x.parquet", "x.tar.gz", "tar", "{0..9}.tar"]
    assert [kind_of(name) for name in names] == [TAR, PARQUET, None, None, TAR]
    assert [name_of(name) for name in ("s3://b/x.tar", "/a/y.tar", "z.tar")] == ["x.tar", "y.tar", "z.tar"]
