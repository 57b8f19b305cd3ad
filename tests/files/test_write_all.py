"""All is written to an open file, of whatever kind it is."""

import io
import os
import threading
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnnjpeg.files.atomic import write_all


class Grudging(io.RawIOBase):
    """Takes seven bytes at a time."""

    def __init__(self) -> None:
        self.content = b""

    def writable(self) -> bool:
        return True

    def write(self, data) -> int:
        self.content += bytes(data[:7])
        return min(len(data), 7)


@given(data=st.binary(max_size=100))
def test_all_is_written_to_a_file_that_takes_parts(data):
    file = Grudging()
    write_all(file, data)
    assert file.content == data


def test_a_file_that_does_not_count_is_given_all_at_once():
    parts = []

    class Kept:
        write = parts.append

    write_all(Kept(), b"all of it")
    assert parts == [b"all of it"]


@pytest.mark.parametrize("count", [True, False, 0, 1, -1, 1000, "9"])
def test_a_file_that_counts_wrongly_is_given_all_once(count):
    parts = []

    class Odd:
        def write(self, data):
            assert not parts
            parts.append(data)
            return count

    write_all(Odd(), b"all of it")
    assert parts == [b"all of it"]


@pytest.mark.parametrize("buffering", [0, 10, 8192, 1 << 20])
def test_all_is_written_to_a_pipe_that_does_not_block(buffering):
    data = os.urandom(300_000)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    found = []

    def read() -> None:
        while part := os.read(reader, 10_000):
            found.append(part)
            time.sleep(0.001)

    thread = threading.Thread(target=read)
    thread.start()
    with open(writer, "wb", buffering) as file:  # noqa: PTH123
        write_all(file, data)
    thread.join(timeout=60)
    os.close(reader)
    assert b"".join(found) == data


def test_what_cannot_be_written_is_an_error():
    reader, writer = os.pipe()
    os.close(reader)
    with pytest.raises(BrokenPipeError), open(writer, "wb", 0) as file:  # noqa: PTH123
        write_all(file, b"x")
