"""The attacks of benchmarks/jpegdl.py, on networks alone and on all forms of a layer before them."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from trainings import Job, data, restore

from dnnjpeg.learn.attacks import attack
from dnnjpeg.learn.batches import cut, pixels, read
from dnnjpeg.learn.jpegdl import Form, JPEGLayer
from dnnjpeg.networks.load import Network

BOUNDS = 1, 2, 4
# What is attacked: the form that attacks go through, and the one in which what they find is read.
FORMS: dict[str, tuple[Form, Any]] = {
    "soft layer": ("soft", "soft"),
    "hard layer": ("hard", "hard"),
    "real files": ("file", "real"),
}


def attack_job(job: Job, work: Path, count: int) -> dict[str, dict[str, Any]]:
    """Accuracy, in percent, of some pictures of the test set, by form, or "" without a layer; then by attack
    and bound (of 255). "any" are those that are right under all attacks.

    An attack goes through the form that is attacked, with its own derivatives, those of the soft one. What it
    finds is rounded to 8 bits, as a picture has them, and stays within the bound; real files are written and
    read by Pillow.
    """
    network, layer = restore(job, work)
    test = data(job.dataset, job.seed)[2]
    count = min(count, len(test))
    index = np.sort(np.random.default_rng(0).permutation(len(test))[:count])
    pictures = cut(test.pictures[index], network.preprocess.size)
    network.module.requires_grad_(False)
    if layer is None:
        return {"": _accuracies(network, None, pictures, test.labels[index], "soft")}
    found = {}
    for name, (layer.form, judged) in FORMS.items():
        found[name] = _accuracies(network, layer, pictures, test.labels[index], judged)
    return found


def _accuracies(
    network: Network, layer: JPEGLayer | None, pictures: np.ndarray, labels: np.ndarray, judged: Any
) -> dict[str, Any]:
    def right(attacked: np.ndarray) -> np.ndarray:
        return read(network, attacked, layer, judged).argmax(1) == labels

    behind = torch.nn.Identity() if layer is None else layer
    found: dict[str, Any] = {"pictures": len(pictures), "clean": _percent(right(pictures))}
    for bound in BOUNDS:
        survived = []
        for kind in ("fgsm", "pgd") if layer is None else ("fgsm", "pgd", "bpda"):
            parts = []
            for i in range(0, len(pictures), 50):
                given = pixels(pictures[i : i + 50], network.device)
                label = torch.from_numpy(labels[i : i + 50])
                place = attack(kind, network, given, label, bound, layer=behind)
                parts.append(place.round().byte().permute(0, 2, 3, 1).numpy())
            survived.append(right(np.concatenate(parts)))
            found[f"{kind} {bound}"] = _percent(survived[-1])
        found[f"any {bound}"] = _percent(np.all(survived, axis=0))
    return found


def _percent(right: np.ndarray) -> float:
    return round(100 * float(right.mean()), 2)
