"""The page about a run: what it says, and that a browser shows it."""

import json
import re
import shutil
import subprocess
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import encode_command
from drawing import draw
from PIL import Image

from dnnjpeg.jobs.report import RunReport
from dnnjpeg.jobs.tasks import Result
from dnnjpeg.target.search import Encoded

HOSTILE = "<script>alert(1)</script>\x1b[1m\udc80&'\".jpg"


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text.append(data)


def result(before: int, after: int, **changes: Any) -> Result:
    return Result(Path("none"), "encoded", pixels=100, bytes_before=before, bytes_after=after, **changes)


def bars(text: str, name: str) -> dict[str, int]:
    (drawing,) = re.findall(rf"<svg id={name} .*?</svg>", text, re.DOTALL)
    found = re.findall(r"<title>([^<]*): ([\d,]+)</title>", drawing)
    return {label: int(count.replace(",", "")) for label, count in found if count != "0"}


def test_histograms_and_the_ends() -> None:
    report, rng = RunReport(), np.random.default_rng(0)
    sizes = [(1000, int(n)) for n in rng.integers(0, 1200, 300)]
    qualities = rng.integers(20, 90, 300)
    for i, (size, quality) in enumerate(zip(sizes, qualities, strict=True)):
        report.add(f"{i:03}", result(*size, found=Encoded(b"", float(quality), None)), 75)
    report.add("copied", Result(Path("x"), "copied", bytes_before=1000, bytes_after=1000), 75)
    text = report.html([])
    percent = [(1000 - after) / 10 for _, after in sizes] + [0]
    expected = Counter("larger" if p < 0 else f"{(k := min(int(p // 5) * 5, 95))}-{k + 5} %" for p in percent)
    assert bars(text, "savings") == expected
    assert bars(text, "qualities") == {str(q): n for q, n in Counter(qualities.tolist()).items()}
    order = sorted(range(300), key=lambda i: sizes[i][1])
    for name, chosen in (("most", order[:10]), ("least", order[:-11:-1])):
        (part,) = re.findall(rf"<div class=pictures id={name}>(.*?)</figure></div>", text, re.DOTALL)
        shown = [int(n) for n in re.findall(r"<figcaption>(\d+)<", part)]
        assert [sizes[i] for i in shown] == [sizes[i] for i in chosen]


def test_without_pictures() -> None:
    assert "Failures: 0" in RunReport().html([])


def test_names_are_text_and_nothing_is_loaded() -> None:
    report = RunReport()
    report.add(HOSTILE, result(10, 5), 75, b"no picture")
    report.add(HOSTILE, Result(Path("x"), "failed", f"bad {HOSTILE}"), 75)
    text = report.html([("Table", HOSTILE)])
    text.encode()
    page = Page(text)
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "a", "img"}
    assert "http:" not in text
    assert "https:" not in text
    shown = "".join(page.text)
    # The ends, the failure and its reason, the table.
    assert shown.count("<script>alert(1)</script>\\x1b[1m\\udc80&'\".jpg") == 5


def test_thousands_of_failures_are_not_all_listed() -> None:
    report = RunReport()
    for i in range(1000):
        report.add(f"name{i}", Result(Path("x"), "failed", "bad"), 75)
    page = Page(report.html([]))
    assert sum(tag == "li" for tag, _ in page.tags) == 200
    assert "Failures: 1,000" in page.text


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for i in range(14):
        Image.fromarray(draw(160, 120, i)).save(tmp_path / "photos" / f"{i:02}.jpg", quality=50 + 3 * i)
    (tmp_path / "photos" / "bad.jpg").write_bytes(b"no picture")
    return tmp_path


def run(folder: Path, *arguments: str) -> str:
    command = encode_command(50, *arguments, "--report", "r.html")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    return (folder / "r.html").read_text()


def test_of_a_folder(folder: Path) -> None:
    text = run(folder, "photos", "-o", "out")
    page = Page(text)
    sources = [values["src"] or "" for tag, values in page.tags if tag == "img"]
    assert len(sources) == 20
    assert all(source.startswith("data:image/jpeg;base64,") for source in sources)
    shown = "".join(page.text)
    before, after = (sum(p.stat().st_size for p in (folder / d).glob("??.jpg")) for d in ("photos", "out"))
    for part in (f"{before:,}", f"{after:,}", "Failures: 1", "photos/bad.jpg: ", "universal"):
        assert part in shown


def test_of_shards(folder: Path) -> None:
    subprocess.run(["tar", "-cf", "x.tar", "-C", "photos", "."], cwd=folder, check=True)
    page = Page(run(folder, "x.tar", "-o", "out"))
    assert sum(tag == "img" for tag, _ in page.tags) == 20
    assert "Failures: 1" in page.text
    assert any("bad.jpg: " in text for text in page.text)


def test_its_folder_is_checked_first(folder: Path) -> None:
    subprocess.run(["tar", "-cf", "x.tar", "-C", "photos", "."], cwd=folder, check=True)
    for source in ("photos", "x.tar"):
        command = encode_command(50, source, "-o", "out", "--report", "none/r.html")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 2
        assert "none/r.html cannot be written: there is no folder none" in done.stderr
        assert not (folder / "out").exists()


def test_it_may_go_to_the_output_folder_that_is_made(folder: Path) -> None:
    command = encode_command(50, "photos", "-o", "out", "--report", "out/r.html")
    assert subprocess.run(command, cwd=folder, capture_output=True).returncode == 1  # of bad.jpg
    assert (folder / "out" / "r.html").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_a_page_that_cannot_be_written_costs_no_summary(folder: Path) -> None:
    subprocess.run(["tar", "-cf", "x.tar", "-C", "photos", "."], cwd=folder, check=True)
    for source in ("photos", "x.tar"):
        command = encode_command(50, source, "-o", "out", "--report", "/dev/full", "--json")
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
        assert done.returncode == 1
        assert "/dev/full" in done.stderr
        assert json.loads(done.stdout)["encoded"] + json.loads(done.stdout)["copied"] == 14


def test_in_a_browser(folder: Path) -> None:
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        pytest.skip("there is no chromium: apt-get install chromium")
    run(folder, "photos", "-o", "out")
    picture = folder / "shown.png"
    subprocess.run(
        [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars",
            "--window-size=1000,1400",
            f"--user-data-dir={folder / 'profile'}", f"--screenshot={picture}", (folder / "r.html").as_uri(),
        ],
        capture_output=True, check=True, timeout=120,
    )  # fmt: skip
    with Image.open(picture) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    assert pixels.shape == (1400, 1000, 3)
    blue = np.abs(pixels - (0x3F, 0x51, 0xB5)).max(2) < 8
    assert blue.sum() > 3000  # bars
    thumbnails = pixels.std(2) > 12  # colours of the drawn pictures
    assert (thumbnails & ~blue).sum() > 20_000
