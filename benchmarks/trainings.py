"""The trainings of benchmarks/jpegdl.py: with and without a JPEG layer, and the controls."""

import json
import os
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from itertools import product
from pathlib import Path

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from dnnjpeg.files.atomic import write_atomic
from dnnjpeg.files.dataset import Dataset, load_dataset
from dnnjpeg.learn.batches import read
from dnnjpeg.learn.first_steps import sensitivity_steps
from dnnjpeg.learn.jpegdl import JPEGLayer
from dnnjpeg.learn.objective import Objective
from dnnjpeg.learn.recipe import Recipe, best_epoch
from dnnjpeg.learn.sensitivity import fisher
from dnnjpeg.learn.training import train
from dnnjpeg.networks.load import Network, load_network
from dnnjpeg.networks.readings import compare
from dnnjpeg.table.library import standard_table
from dnnjpeg.table.point import OperatingPoint

HERE = Path(__file__).parent
HELD_OUT = 0.1  # of the training pictures, for choosing the epoch; the same for all seeds
NETWORKS = {
    "flowers17": ("flowers_resnet18_narrow", "flowers_vgg"),
    "cifar10": ("cifar_resnet20", "cifar_vgg", "cifar_resnet32", "cifar_densenet"),
    "ten flowers": ("flowers_resnet18_narrow", "flowers_vgg"),
}
RECIPES = {
    "flowers17": Recipe(epochs=30, batch=32, lr=0.05, decay=5e-4, pad=0, bfloat16=True),
    "cifar10": Recipe(epochs=10, batch=64, lr=0.05, decay=5e-4, pad=4, bfloat16=True),
    "ten flowers": Recipe(epochs=200, batch=32, lr=0.05, decay=5e-4, pad=0, bfloat16=True),
}
SENSITIVE = {
    "flowers17": "resnet18",
    "cifar10": "cifar_resnet20",
    "ten flowers": "resnet18",
}  # trained networks that first steps are from
ARMS = {
    "without": "no layer",
    "JPEG-DL": "steps >= 1 from sensitivities, 255 levels, alpha 5: what a file can hold; logarithms of "
    "steps are trained, pixels held to 0..255, not rounded, as in all arms but the next",
    "JPEG-DL, as published": "steps are trained themselves, by Adam at 0.003, held to 1e-5..255, alpha 5, "
    "five of 255 indices; pixels neither rounded nor held to 0..255: the authors' layer",
    "JPEG-DL, steps below 1": "JPEG-DL with steps down to 1e-5, which no file can hold",
    "JPEG-DL, close bounds": "this, but with integer steps, and fewer levels where they were below 1",
    "no clipping": "steps >= 1 from the standard table of quality 75, any number of levels, kappa 5",
    "JPEG-DL, integer steps": "JPEG-DL, steps rounded while training, so that files hold them",
    "untrained": "JPEG-DL, integer steps, left as they begin",
    "close bounds, untrained": "JPEG-DL, close bounds, left as it begins",
    "clip only": "JPEG-DL with kappa 1: held to 255 levels, but not quantized",
    "JPEG augmentation": "no layer; real files of standard tables, qualities 10 to 90, while training",
}
PUBLISHED = "JPEG-DL, as published"
MAIN = "without", "JPEG-DL, integer steps"
CONTROLS = (
    "clip only", "untrained", "JPEG augmentation", "JPEG-DL", "no clipping", "JPEG-DL, as published",
    "JPEG-DL, steps below 1", "JPEG-DL, close bounds", "close bounds, untrained",
)  # fmt: skip


@dataclass(frozen=True)
class Job:
    dataset: str
    network: str
    arm: str
    seed: int

    @property
    def title(self) -> str:
        """The network's name, and of two data sets which."""
        return f"ten_{self.network}" if self.dataset == "ten flowers" else self.network

    @property
    def name(self) -> str:
        return f"{self.title}-{self.arm.replace(',', '').replace(' ', '_')}-{self.seed}"


def jobs(seeds: int) -> list[Job]:
    """With and without the layer, all seeds; then, seed by seed, the controls, most of them with the first
    network of each data set.
    """
    main = [
        Job(dataset, network, arm, seed)
        for dataset, networks in NETWORKS.items()
        for seed in range(seeds)
        for network, arm in product(networks, MAIN)
    ]
    controls = [
        Job(dataset, network, arm, seed)
        for seed in range(seeds)
        for arm in CONTROLS
        for dataset, networks in NETWORKS.items()
        for network in (networks if "JPEG-DL" in arm or "untrained" in arm else networks[:1])
    ]
    return [*main, *controls]


def root() -> Path:
    if not (folder := os.environ.get("DNNJPEG_DATA")):
        raise click.UsageError("set DNNJPEG_DATA to the folder that holds data/ and models/")
    return Path(folder)


def data(name: str, seed: int) -> tuple[Dataset, Dataset, Dataset]:
    """To learn from, to choose the epoch by, to test on. Of "ten flowers", ten of each class for the first
    two, drawn by the seed; of the others, the same for all seeds.
    """
    folder = root() / "data" / ("cifar10" if name == "cifar10" else "flowers17")
    if name == "cifar10":

        def sprites(files: list[Path], labels: str) -> Dataset:
            pictures = np.concatenate([np.asarray(Image.open(file)).reshape(-1, 32, 32, 3) for file in files])
            names = tuple(map(str, range(len(pictures))))
            return Dataset(pictures, np.load(folder / labels).astype(np.int64), names, name)

        learning = sprites(sorted(folder.glob("train_*.png")), "train_labels.npy")
        test = sprites([folder / "test_0000.png"], "test_labels.npy")
    else:
        every = load_dataset(folder, folder / "labels.csv", size=144)
        lines = (line.split(",") for line in (folder / "labels.csv").read_text().splitlines())
        split = {file: part for file, _, part in lines}
        is_test = np.array([split[file] == "test" for file in every.names])
        learning, test = every.take(np.flatnonzero(~is_test)), every.take(np.flatnonzero(is_test))
    if name != "ten flowers":
        validation, learning = learning.split(HELD_OUT, seed=0)
        return learning, validation, test
    order = np.random.default_rng(seed).permutation(len(learning))
    by_class = [order[learning.labels[order] == label] for label in np.unique(learning.labels)]
    learned, chosen_by = (
        learning.take(np.concatenate([index[part] for index in by_class]))
        for part in (slice(10), slice(10, 20))
    )
    return learned, chosen_by, test


def first_steps(name: str, learning: Dataset, work: Path) -> np.ndarray:
    """JPEG-DL's, from the sensitivities of a trained network; kept."""
    file = work / f"sensitivity-{learning.identity[:12]}.npy"
    if not file.exists():
        network = load_network(f"{root()}/models/zoo.py:{SENSITIVE[name]}")
        unlabelled = replace(learning.head(400), labels=None)  # of other classes than the network's
        objective = Objective([network], unlabelled)
        np.save(file, fisher(objective, "4:4:4"))
    return sensitivity_steps(np.load(file))


def layer_of(job: Job, learning: Dataset, work: Path) -> JPEGLayer | None:
    if job.arm in ("without", "JPEG augmentation"):
        return None
    if job.arm == "no clipping":
        return JPEGLayer.from_point(standard_table().at(75), subsampling="4:4:4", kappa=5)
    steps = first_steps(job.dataset, learning, work)
    hardness = {"kappa": 1} if job.arm == "clip only" else {"alpha": 5}
    is_close, published = "close bounds" in job.arm, job.arm == PUBLISHED
    least = 1e-5 if is_close or published or job.arm == "JPEG-DL, steps below 1" else 1
    rounded = is_close or job.arm in ("JPEG-DL, integer steps", "untrained")
    return JPEGLayer(steps, levels=255, least=least, integer_steps=rounded, published=published, **hardness)


def fresh(job: Job) -> Network:
    """The network of a job with first weights of its seed."""
    torch.manual_seed(job.seed)
    return load_network(f"{HERE / 'networks.py'}:{job.network}")


def recipe_of(job: Job, epochs: int | None) -> Recipe:
    """How a job is trained, for so many epochs in place of its data set's."""
    recipe = replace(RECIPES[job.dataset], seed=job.seed)
    if epochs is not None:
        recipe = replace(recipe, epochs=epochs)
    if job.arm == PUBLISHED:
        recipe = replace(recipe, layer_lr=0.003)
    return replace(recipe, layer_lr=0.0) if "untrained" in job.arm else recipe


def check_epochs(record: Path, epochs: int) -> None:
    """Refuses the record of a training of other epochs, which would be taken for one of these."""
    if record.exists() and (trained := json.loads(record.read_text())["recipe"]["epochs"]) != epochs:
        raise click.UsageError(
            f"{record} is a training of {trained} epochs, not of {epochs}: give another folder as --work"
        )


def run_job(job: Job, work: Path, recipe: Recipe) -> None:
    for kind in ("right.npy", "robust.json"):  # of a network that is trained again
        (work / f"{job.name}.{kind}").unlink(missing_ok=True)
    learning, validation, test = data(job.dataset, job.seed)
    points: list[OperatingPoint] = []
    if job.arm == "JPEG augmentation":
        points = [standard_table().at(quality) for quality in range(10, 91, 10)]
    network, layer = fresh(job), layer_of(job, learning, work)
    state = work / f"{job.name}.pt"
    log = train(network, learning, validation, recipe, layer=layer, points=points, state=state)
    best = best_epoch(log, recipe, len(validation))
    accuracies = {}
    forms = ("soft", "hard", "integer steps", "real") if layer is not None else ("soft",)
    for form in forms:
        behind = layer
        if layer is not None and form == "integer steps":
            behind = deepcopy(layer)
            behind.integer_steps = True
        logits = read(network, test.pictures, behind, "hard" if form == "integer steps" else form)
        accuracies[form] = round(100 * float(compare(logits, logits, test.labels).top1.mean()), 2)
    tensors = {f"network.{key}": value for key, value in network.module.state_dict().items()}
    if layer is not None:
        tensors |= {f"layer.{key}": value for key, value in layer.state_dict().items()}
    save_file({key: value.contiguous() for key, value in tensors.items()}, work / f"{job.name}.safetensors")
    record = {
        **asdict(job),
        "recipe": asdict(recipe),
        "pictures": [len(learning), len(validation), len(test)],
        "epoch": best.epoch,
        "validation": round(100 * best.val_top1, 2),
        "test": accuracies,
        "minutes": round(sum(epoch.seconds for epoch in log) / 60, 2),
        "log": [asdict(epoch) for epoch in log],
        "steps": None if layer is None else np.round(layer.log_steps().detach().exp().numpy(), 3).tolist(),
    }
    write_atomic(work / f"{job.name}.json", json.dumps(record).encode() + b"\n")
    state.unlink()


def restore(job: Job, work: Path) -> tuple[Network, JPEGLayer | None]:
    """What a job has trained."""
    tensors = load_file(work / f"{job.name}.safetensors")
    network = fresh(job)
    network.module.load_state_dict(_under("network.", tensors))
    state = _under("layer.", tensors)
    if not state:
        return network, None
    layer = JPEGLayer(published=job.arm == PUBLISHED)
    layer.load_state_dict(state)
    return network, layer


def _under(prefix: str, tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def right(job: Job, work: Path) -> np.ndarray:
    """Which test pictures a job's network has right behind its soft layer; kept."""
    file = work / f"{job.name}.right.npy"
    if not file.exists():
        network, layer = restore(job, work)
        test = data(job.dataset, job.seed)[2]
        logits = read(network, test.pictures, layer)
        np.save(file, compare(logits, logits, test.labels).top1)
    return np.load(file)
