"""A codec that asks a network, as `dnnjpeg encode --network NETWORK --keep price=X` does."""

from collections.abc import Sequence
from functools import cache
from threading import Lock
from typing import Any

from dnnjpeg.evaluate.codecs import Codec
from dnnjpeg.table.library import load_table
from dnnjpeg.target.target import encode_to_target


def asked_codec(name: str, table_name: str, network: Any, pictures: Sequence[Any]) -> Codec:
    """A codec for these pictures alone. Its files have the least distance + price x bytes. Its quality stands
    for the price: 1e-5 at 50, a tenth at 75.
    """
    table = load_table(table_name)
    numbers = {picture.tobytes(): i for i, picture in enumerate(pictures)}
    turn = Lock()  # the network keeps what it reads for a moment

    @cache
    def files(quality: float) -> list[bytes]:
        keep = f"price={10 ** (-3 - quality / 25):.3g}"
        how = {"networks": [network], "keep": keep, "signature": False, "progressive": "auto"}
        return [found.data for found in encode_to_target(list(pictures), table, **how)]

    def encode(picture: Any, quality: float) -> bytes:
        with turn:
            return files(quality)[numbers[picture.tobytes()]]

    return Codec(name, encode, _key=lambda quality: (name, quality, network.digest, table.to_json()))
