"""Detection: boxes or heat maps of two readings matched, and how far they are apart."""

import torch
from torch import Tensor
from torch.nn import functional as F

from dnnjpeg.networks.outputs import Output, single
from dnnjpeg.networks.task import Task

_MOST = 100  # boxes of a picture that are matched, by confidence

Boxes = tuple[Tensor, Tensor]


class Detection(Task):
    """Detections before non-maximum suppression. Classes have logits of sigmoids.

    Either {"boxes": N x K x 4 (left, top, right, bottom), "logits": N x K x classes}, or a heat map, N x
    classes x H x W.

    Distance of boxes: each of the 100 most confident ones is matched with the box of the other output that is
    nearest by 1 - IoU plus the divergence of the classes. The mean is weighted by confidence, and both
    directions count. Of a heat map: the divergence of all places, divided by the sum of the original's
    probabilities (at least 1). Agrees: the share of the confident boxes (or peaks) that the file keeps.
    """

    name = "detection"
    expects = "boxes N x K x 4 and logits N x K x classes, or a heat map N x classes x height x width"
    same = 1.0

    def distance(self, read: Output, clean: Output) -> Tensor:
        if isinstance(read, Tensor) or isinstance(clean, Tensor):
            original = single(clean)
            total = _bernoulli(single(read), original).sum((1, 2, 3))
            return total / original.sigmoid().sum((1, 2, 3)).clamp(min=1)
        one, other = _most_confident(read), _most_confident(clean)
        there, back = _nearest(other, one), _nearest(one, other)
        return (there + back) / 2

    def agrees(self, read: Output, clean: Output) -> Tensor:
        if isinstance(read, Tensor) or isinstance(clean, Tensor):
            peaks, sure = ((single(value) > 0).flatten(1) for value in (read, clean))
            return _share(peaks & sure, peaks | sure)
        (boxes, logits), (own_boxes, own) = _most_confident(read), _most_confident(clean)
        sure, found = own.amax(2) > 0, logits.amax(2) > 0
        alike = own.argmax(2)[:, :, None] == logits.argmax(2)[:, None]
        pairs = (_iou(own_boxes, boxes) > 0.5) & alike & found[:, None]
        return _share(pairs.any(2) & sure, sure)

    def fits(self, output: Output) -> bool:
        if isinstance(output, Tensor):
            return output.ndim == 4
        boxes, logits = output.get("boxes"), output.get("logits")
        if boxes is None or logits is None or boxes.ndim != 3 or logits.ndim != 3:
            return False
        return boxes.shape[:2] == logits.shape[:2] and boxes.shape[2] == 4


def _bernoulli(logits: Tensor, clean: Tensor) -> Tensor:
    """KL(clean || logits) of each sigmoid."""
    yes = clean.sigmoid() * (F.logsigmoid(clean) - F.logsigmoid(logits))
    return yes + (-clean).sigmoid() * (F.logsigmoid(-clean) - F.logsigmoid(-logits))


def _most_confident(output: dict[str, Tensor]) -> Boxes:
    """The boxes and logits of the most confident detections."""
    boxes, logits = output["boxes"], output["logits"]
    order = logits.amax(2).topk(min(_MOST, logits.shape[1])).indices[..., None]
    return boxes.take_along_dim(order, 1), logits.take_along_dim(order, 1)


def _nearest(of: Boxes, among: Boxes) -> Tensor:
    """The mean cost of matching each detection of `of` with the nearest one of `among`, [N]."""
    costs = 1 - _iou(of[0], among[0])
    costs = costs + _bernoulli(among[1][:, None], of[1][:, :, None]).sum(3)
    weights = of[1].detach().amax(2).sigmoid()
    return (weights * costs.amin(2)).sum(1) / weights.sum(1).clamp(min=1e-9)


def _iou(one: Tensor, other: Tensor) -> Tensor:
    """Intersection over union of all pairs, N x K x L. It is 1 for equal boxes, also for empty ones."""
    a, b = one[:, :, None], other[:, None]
    inside = (torch.minimum(a[..., 2:], b[..., 2:]) - torch.maximum(a[..., :2], b[..., :2])).clamp(min=0)
    both = inside.prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    whole = areas[0] + areas[1] - both
    equal = (a == b).all(-1)
    return torch.where(equal, torch.ones_like(both), both / whole.clamp(min=1e-9))


def _share(part: Tensor, whole: Tensor) -> Tensor:
    """The share of the true entries, [N]. 1 if there are none."""
    count = whole.sum(1)
    return torch.where(count > 0, part.sum(1) / count.clamp(min=1), 1.0)
