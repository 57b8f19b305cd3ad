"""Image retrieval: the bytes at equal recall, for embeddings of two networks.

    python benchmarks/retrieval.py measure    results/retrieval.json; needs DNNJPEG_DATA
    python benchmarks/retrieval.py show

An embedding is what the last layer of a classifier reads. The index holds the embeddings of all originals of
a data set. A query is an encoded picture. recall@1: the nearest of all other originals is the one that is
nearest to the query's own original. No table was learned for these embeddings. "network asked": as `dnnjpeg
encode --network NETWORK --keep price=X` does.
"""

import importlib.util
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, cast

import click
import numpy as np
import torch
from asked import asked_codec
from common import RESULTS, write
from ruler import hasten
from torch import Tensor, nn

from dnnjpeg.networks.tasks import Embedding

NETWORKS = "mobilenet_v2", "resnet50"
SETS = {"flowers17": "flowers17", "imagenet": "imagenet/val"}
ASKED = "dnnjpeg:universal, network asked"
CODECS = (
    "pillow,subsampling=4:4:4",
    "mozjpeg",
    "jpegli",
    "webp",
    "dnnjpeg:universal",
    "dnnjpeg:universal,adaptive=read",
)
REFERENCE, AT = "pillow", (50.0,)


class Penultimate(nn.Module):
    """A classifier that returns the input of its last layer."""

    task = "embedding"

    def __init__(self, classifier: nn.Module, last: nn.Module) -> None:
        super().__init__()
        self.classifier, self.preprocess = classifier, classifier.preprocess
        last.register_forward_pre_hook(self._keep)

    def _keep(self, _: nn.Module, given: tuple[Tensor, ...]) -> None:
        self._found = given[0].flatten(1)

    def forward(self, pixels: Tensor) -> Tensor:
        self.classifier(pixels)
        return self._found


def resnet50() -> nn.Module:
    """2048 features of the shared resnet50."""
    classifier = _zoo().resnet50()
    classifier.fc, classifier.task = nn.Identity(), "embedding"
    return cast(nn.Module, classifier)


def mobilenet_v2() -> nn.Module:
    """1280 features of the shared mobilenet_v2."""
    classifier = _zoo().mobilenet_v2()
    return Penultimate(classifier, classifier.convs[-1])


def _zoo() -> Any:
    path = Path(os.environ["DNNJPEG_DATA"]) / "models" / "zoo.py"
    spec = importlib.util.spec_from_file_location("zoo", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Retrieval(Embedding):
    """Embeddings that search an index. The targets are the numbers of the queries in it."""

    name = "retrieval"
    scores: ClassVar[Mapping[str, int]] = {"recall": 1}

    def __init__(self, index: Tensor, source: str) -> None:
        """index: embeddings of the originals. source: the data set."""
        self.index, self.source = nn.functional.normalize(index.double()), source
        self.nearest = self._search(self.index, torch.arange(len(index)))

    def _search(self, queries: Tensor, numbers: Tensor) -> Tensor:
        """The nearest original of each query, its own left out."""
        likeness = nn.functional.normalize(queries.double()) @ self.index.T
        return likeness.scatter(1, numbers[:, None], -2.0).argmax(1)

    def metrics(self, read: Any, target: Tensor) -> dict[str, Tensor]:
        return {"recall": self._search(read, target) == self.nearest[target]}

    @property
    def identity(self) -> tuple[object, ...]:
        return self.name, self.source  # the network is part of each key already


@click.group()
def main() -> None:
    """Image retrieval."""


@main.command()
@click.option("--queries", type=int, default=200, show_default=True, help="Pictures of each data set.")
@click.option("--network", "names", type=click.Choice(NETWORKS), multiple=True, default=NETWORKS)
@click.option("--data", "titles", type=click.Choice(list(SETS)), multiple=True, default=list(SETS))
@click.option("--cache", "folder", type=click.Path(path_type=Path), help="Where readings are kept.")
def measure(queries: int, names: Sequence[str], titles: Sequence[str], folder: Path | None) -> None:
    """Measure all codecs. Results of other networks and data sets stay as they are."""
    import platformdirs

    from dnnjpeg.files.cache import Cache
    from dnnjpeg.files.dataset import load_dataset
    from dnnjpeg.networks.load import load_network
    from dnnjpeg.networks.measurer import Measurer

    root = folder or platformdirs.user_cache_path("dnnjpeg")
    kept, results_file = Cache(root / "readings"), RESULTS / "retrieval.json"
    found: dict[str, Any] = {"queries": queries, "pictures": {}, "sets": {}}
    if results_file.exists() and (old := json.loads(results_file.read_text()))["queries"] == queries:
        found = {key: old[key] for key in found}
    for name in names:
        network = load_network(f"{Path(__file__).resolve()}:{name}")
        for title in titles:
            data = load_dataset(Path(os.environ["DNNJPEG_DATA"]) / "data" / SETS[title])
            data = replace(data, labels=None)
            if not isinstance(network.module, Penultimate):  # a chain of dnnjpeg.sparse may skip its hook
                hasten(network, data.pictures[:8], root / "plans")
            found["pictures"][title] = len(data)
            clean = Measurer(data, {name: network}, kept, batch=1).clean[name]
            reader = replace(network, task=Retrieval(torch.from_numpy(clean), title))
            index = np.sort(np.random.default_rng(0).permutation(len(data))[:queries])
            some = replace(data.take(index), labels=index.astype(np.int64))
            asked = asked_codec(ASKED, "universal", network, some.pictures)
            results = _compared(Measurer(some, {name: reader}, kept, batch=1), name, asked)
            found["sets"].setdefault(title, {})[name] = results
            write("retrieval", found)


def _compared(measurer: Any, name: str, asked: Any) -> dict[str, Any]:
    from dnnjpeg.evaluate.codecs import load_codec
    from dnnjpeg.evaluate.ladder import Ladder, climb
    from dnnjpeg.evaluate.measure import measure as measure_one
    from dnnjpeg.evaluate.report import report

    codecs = {one: load_codec(one) for one in (REFERENCE, *CODECS)} | {ASKED: asked}
    ladders = {one: Ladder(codec, partial(measure_one, measurer)) for one, codec in codecs.items()}
    for quality in (30, 50, 75):
        ladders[REFERENCE].at(quality, [name])
    scores = {name: Retrieval.scores}
    climb(ladders, {key: [name] for key in codecs}, [REFERENCE], AT, scores)
    return report(
        {one: ladder.settings for one, ladder in ladders.items()},
        measurer.originals,
        [REFERENCE],
        AT,
        pixels=measurer.dataset.pixels,
        scores=scores,
        headerless=False,
    )


@main.command()
def show() -> None:
    """Bytes at equal recall and at equal distance, against Pillow's default at quality 50."""
    click.echo(as_markdown(json.loads((RESULTS / "retrieval.json").read_text())))


def as_markdown(found: dict[str, Any]) -> str:
    """A table: the change of bytes from the reference, with 95 % intervals."""
    columns = [(title, name) for title, own in found["sets"].items() for name in own]
    lines = ["| against Pillow 4:2:0 at quality 50 | " + " | ".join(f"{n}, {t}" for t, n in columns) + " |"]
    lines.append("|---|" + "---|" * len(columns))
    recalls = [_setting(found["sets"][t][n], n)["recall"]["value"] for t, n in columns]
    lines.append("| Pillow's recall@1 | " + " | ".join(f"{100 * x:.1f} %" for x in recalls) + " |")
    for metric, words in (("recall", "recall@1"), ("divergence", "distance")):
        for codec in (*CODECS, ASKED):
            cells = [_cell(found["sets"][t][n]["comparisons"], codec, metric) for t, n in columns]
            lines.append(f"| {codec}, bytes at equal {words} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _setting(results: dict[str, Any], name: str) -> dict[str, Any]:
    (one,) = (s for s in results["settings"] if (s["codec"], s["quality"]) == (REFERENCE, AT[0]))
    return one["networks"][name]


def _cell(comparisons: Sequence[dict[str, Any]], codec: str, metric: str) -> str:
    from dnnjpeg.evaluate.text import in_words, interval

    own = [one for one in comparisons if (one["codec"], one["metric"]) == (codec, metric)]
    if not own:
        return "not measured"
    (row,) = own
    return in_words(interval(row["points"][0]["bytes_change"], 1)) + " %"


if __name__ == "__main__":
    main()
