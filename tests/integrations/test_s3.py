"""Shards in a bucket: a server of moto on this machine, which fails when it is told to."""

import sys
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import pytest
from skipping import MISSING

sys.path.append(str(Path(__file__).parents[1] / "shards"))
from shard_files import make, samples, tar_bytes, tree

pytestmark = pytest.mark.filterwarnings("ignore")  # botocore's and moto's own


class Bucket:
    """fails: requests to come that the server answers with 500, of this kind."""

    def __init__(self, url: str, fs: Any, app: Any) -> None:
        self.url, self.fs, self._app = url, fs, app
        self.fails, self.method, self.failed = 0, "PUT", 0

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        if self.fails and environ["REQUEST_METHOD"] == self.method and ".tar" in environ["PATH_INFO"]:
            self.fails -= 1
            self.failed += 1
            start("500 Internal Server Error", [("Content-Length", "0")])
            return [b""]
        return self._app(environ, start)

    def shards(self) -> dict[str, bytes]:
        self.fs.invalidate_cache()
        paths = [path for path in self.fs.find("bucket/out") if not path.endswith(".json")]
        return {path.removeprefix("bucket/out/"): self.fs.cat_file(path) for path in paths}


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Iterator[Bucket]:
    server = pytest.importorskip("moto.server", reason=f"moto {MISSING}")
    s3fs = pytest.importorskip("s3fs", reason=f"s3fs {MISSING}")
    from werkzeug.serving import make_server

    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "none")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    app = server.DomainDispatcherApplication(server.create_backend_app)
    found = Bucket("", None, app)
    http = make_server("127.0.0.1", 0, found, threaded=True)
    thread = threading.Thread(target=http.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{http.server_port}")
    s3fs.S3FileSystem.clear_instance_cache()
    found.fs = s3fs.S3FileSystem()
    found.fs.mkdir("bucket")
    yield found
    found.fails = 0
    found.fs.invalidate_cache()
    found.fs.rm("bucket", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    http.shutdown()
    http.server_close()
    thread.join()


@pytest.fixture
def expected(bucket: Bucket, tmp_path: Path) -> dict[str, bytes]:
    for i in range(2):
        data = tar_bytes(samples(3, 3 * i))
        (tmp_path / f"{i:03}.tar").write_bytes(data)
        bucket.fs.pipe_file(f"bucket/in/{i:03}.tar", data)
    make(tmp_path / "*.tar", tmp_path / "expected")
    return tree(tmp_path / "expected")


def test_there_and_again(bucket: Bucket, expected: dict[str, bytes]) -> None:
    assert [one.status for one in make("s3://bucket/in/{000..001}.tar", "s3://bucket/out")] == ["done"] * 2
    assert bucket.shards() == expected
    assert [one.status for one in make("s3://bucket/in/*.tar", "s3://bucket/out")] == ["before"] * 2


@pytest.mark.parametrize("method", ["PUT", "GET"])
def test_a_server_that_fails(bucket: Bucket, expected: dict[str, bytes], method: str) -> None:
    bucket.fails, bucket.method = 10**6, method
    found = make("s3://bucket/in/*.tar", "s3://bucket/out")
    assert [one.status for one in found] == ["failed"] * 2
    assert bucket.failed
    assert all(one.reason for one in found)
    bucket.fails = 0
    assert bucket.shards() == {}
    assert [one.status for one in make("s3://bucket/in/*.tar", "s3://bucket/out")] == ["done"] * 2
    assert bucket.shards() == expected


def test_a_server_that_fails_now_and_then(bucket: Bucket, expected: dict[str, bytes]) -> None:
    """What s3fs tries again by itself."""
    bucket.fails = 1
    assert [one.status for one in make("s3://bucket/in/*.tar", "s3://bucket/out")] == ["done"] * 2
    assert bucket.failed == 1
    assert bucket.shards() == expected
