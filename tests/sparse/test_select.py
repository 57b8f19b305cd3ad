"""The selector: what it sees, what it changes and gives back, plans on disk, and that it never does harm."""

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from small_networks import is_planned, pictures, small

torch = pytest.importorskip("torch")

from torch import Tensor, nn  # noqa: E402

from dnnjpeg.sparse import (  # noqa: E402
    Plan,
    SparseConv2d,
    apply_,
    optimize_,
    restore_,
    select,
)
from dnnjpeg.sparse import plan as plans  # noqa: E402
from dnnjpeg.sparse.dense import DENSE, LOWERED, OURS, TORCH, DenseConv2d  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402
from dnnjpeg.sparse.replaced import FoldedNorm, KnownReLU  # noqa: E402
from dnnjpeg.sparse.tiling import SPARSE, Tiling  # noqa: E402
from dnnjpeg.sparse.trace import sites  # noqa: E402

TILED = Tiling(True, 16, 1)._asdict()


def logits(network: nn.Module, x: Tensor) -> Tensor:
    with torch.inference_mode():
        return network(x)


@pytest.fixture
def favoured(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine where what is sparse always gains."""
    own = select.clock

    def clock(functions: dict[Any, Any], *rest: Any) -> dict[Any, float]:
        own(functions, 0.0)
        return {
            key: 1000.0 if key in DENSE or key in ("original", "dense", "cautious") else 1.0
            for key in functions
        }

    monkeypatch.setattr(select, "clock", clock)


@pytest.mark.parametrize("inplace", [True, False])
def test_what_follows_a_convolution(inplace: bool) -> None:
    found = {site.name: site for site in sites(small(inplace=inplace), (pictures(),))}
    assert list(found) == [
        "stem",
        *(f"blocks.{block}.conv{k}" for block in range(2) for k in (1, 2)),
        "depthwise",
        "wide",
    ]
    first, second = found["blocks.0.conv1"], found["blocks.0.conv2"]
    assert (first.norm, first.relu, first.onward) == ("blocks.0.bn1", "blocks.0.relu", "blocks.0.conv2")
    assert (second.norm, second.relu, second.onward) == ("blocks.0.bn2", None, None)
    assert (found["stem"].norm, found["stem"].relu) == ("norm", "relu")
    assert found["stem"].onward is None  # the residual reads it too
    assert (found["depthwise"].norm, found["depthwise"].relu) == (None, None)  # a relu that is no module
    assert float((second.input == 0).float().mean()) > 0.2


def test_inputs_are_those_of_the_call_and_not_changed_later() -> None:
    class Late(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.conv(x) + self.relu(x)

    x = pictures()
    (site,) = sites(Late().eval(), (x.clone(),))
    assert torch.equal(site.input, x)


@pytest.mark.parametrize("inplace", [True, False])
def test_optimized_and_restored(inplace: bool, favoured: None) -> None:
    network, x = small(inplace=inplace), pictures()
    before, state = logits(network, x), dict(network.state_dict())
    modules = dict(network.named_modules())
    report = optimize_(network, x, seconds=0)
    assert report.choice == "plan" and report.difference < 1e-5
    assert torch.allclose(logits(network, x), before, atol=1e-4)
    assert torch.allclose(logits(network, x[:1]), before[:1], atol=1e-4)  # another batch
    kinds = {name: type(module) for name, module in network.named_modules()}
    assert kinds["blocks.0.conv1"] is kinds["blocks.1.conv2"] is SparseConv2d
    assert kinds["blocks.0.bn1"] is FoldedNorm and kinds["blocks.0.relu"] is KnownReLU
    assert network.blocks[0].conv1.onward is network.blocks[0].conv2
    now = network.state_dict()
    assert list(now) == list(state) and all(now[key] is not None for key in now)
    assert all(torch.equal(now[key], value) for key, value in state.items())
    restore_(network)
    assert dict(network.named_modules()) == modules
    assert torch.equal(logits(network, x), before)
    restore_(network)


def test_an_optimized_network_is_copied_whole(favoured: None) -> None:
    network, x = small(), pictures()
    before = logits(network, x)
    optimize_(network, x, seconds=0)
    copied = copy.deepcopy(network)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
    assert torch.allclose(logits(copied, x), before, atol=1e-4)
    assert not torch.allclose(logits(network, x), before, atol=1e-4)
    assert copied.blocks[0].conv1.onward is copied.blocks[0].conv2
    restore_(copied)
    assert torch.equal(logits(copied, x), before)


def test_a_norm_in_training_stays(favoured: None) -> None:
    network = small()
    network.norm.train()
    assert {site.name: site.norm for site in sites(network, (pictures(),))}["stem"] is None


def test_the_report(favoured: None) -> None:
    network = small()
    report = optimize_(network, pictures(), seconds=0)
    document = json.loads(json.dumps(report.to_json()))
    assert [layer["name"] for layer in document["layers"]] == [layer.name for layer in report.layers]
    by_name = {layer.name: layer for layer in report.layers}
    block = by_name["blocks.0.conv2"]
    assert (
        set(block.times) == {*TORCH, *LOWERED, "direct", "winograd", "winograd4", *SPARSE}
        and block.choice in SPARSE
    )
    assert 0.2 < block.zeros < 0.9 and block.difference < 1e-5
    ratios = block.compression_ratios
    assert set(ratios) == {*LOWERED, *SPARSE} and ratios["im2col"] == 1
    pixels, lowered = 2 * 8 * 8, 2 * 8 * 8 * 32 * 9  # of two pictures of 32 channels
    nonzeros = round((1 - block.zeros) * 32 * pixels)
    assert ratios["ring-patterns"] == lowered / (nonzeros + pixels)  # a bit for each channel
    assert ratios["mec"] < ratios["ring-numbered"] < lowered / (2 * nonzeros)
    assert set(by_name["depthwise"].times) == {*TORCH, "depthwise"} and set(by_name["wide"].times) == set(
        TORCH
    )
    text = str(report)
    assert all(layer.name in text for layer in report.layers) and "the network unchanged: " in text
    lines = text.splitlines()
    table = lines[3 : 3 + len(report.layers)]
    assert len({len(line) for line in table}) == 1  # columns under each other
    (line,) = (line for line in lines if line.startswith("blocks.0.conv2"))
    assert f"{SPARSE[block.choice]} {ratios[block.choice]:6.1f}x " in line
    assert document["conditions"]["threads"] == torch.get_num_threads()


def test_inputs_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    """A processor learns one alone by heart. They differ, and have the zeros of the one that is given."""
    taken: dict[Any, list[Tensor]] = {}
    own = DenseConv2d.forward

    def forward(self: DenseConv2d, x: Tensor) -> Tensor:
        taken.setdefault((self.module, self.method), []).append(x)
        return own(self, x)

    monkeypatch.setattr(DenseConv2d, "forward", forward)
    network = small()
    stem = network.stem
    optimize_(network, pictures(), seconds=0)
    inputs = taken[stem, "direct"]
    assert len({x.numpy().tobytes() for x in inputs}) == 4
    assert all(torch.equal(x.flatten().sort()[0], inputs[0].flatten().sort()[0]) for x in inputs)
    assert [x.data_ptr() for x in inputs[1:6]] == [x.data_ptr() for x in taken[stem, "im2col"][1:6]]


def test_a_layer_is_measured_as_it_is_in_the_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a sum reads it, with a summand; and between two calls, other memory is touched."""
    summed: set[str] = set()
    compute, clock, between = DenseConv2d.compute, select.clock, []

    def computed(self: DenseConv2d, x: Tensor, residual: Tensor | None, *rest: Any) -> Tensor:
        if residual is not None:
            summed.add(names[self.module])
        return compute(self, x, residual, *rest)

    def clocked(functions: dict[Any, Any], seconds: float, *rest: Any) -> dict[Any, float]:
        between.append(rest)
        return clock(functions, seconds, *rest)

    network = small()
    names = {module: name for name, module in network.named_modules()}
    found = {site.name: site.is_summed for site in sites(network, (pictures(),))}
    assert found["blocks.0.conv2"] and not found["blocks.0.conv1"] and not found["stem"]
    monkeypatch.setattr(DenseConv2d, "compute", computed)
    monkeypatch.setattr(select, "clock", clocked)
    monkeypatch.setattr(select, "_settle", lambda *given: given)
    optimize_(network, pictures(), seconds=0)
    assert summed == {name for name, is_summed in found.items() if is_summed}
    others = torch.zeros(5)
    assert len(between) == len(found) and all(len(rest) == 1 for rest in between)
    site = next(site for site in sites(network, (pictures(),)) if site.name == "stem")
    with torch.inference_mode():
        select._measure(site, others, 0.0)
    assert float(others.min()) >= 5


def test_what_is_slower_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a layer, and in the whole network."""
    own = select.clock

    def slow_sparse(functions: dict[Any, Any], *rest: Any) -> dict[Any, float]:
        times = own(functions, 0.0)
        return {key: value + 1000 * (key not in DENSE) for key, value in times.items()}

    monkeypatch.setattr(select, "clock", slow_sparse)
    report = optimize_(small(), pictures(), seconds=0)
    assert all(layer.choice in DENSE for layer in report.layers)

    def slow_plans(functions: dict[Any, Any], *rest: Any) -> dict[Any, float]:
        return {key: 2.0 - (key == "original") for key in own(functions, 0.0)}

    monkeypatch.setattr(select, "clock", slow_plans)
    network = small()
    report = optimize_(network, pictures(), seconds=0)
    assert report.choice == "original" and report.speedup == 1 and not report.plan.layers
    assert not is_planned(network)


def test_what_gains_little_alone_is_left_out_of_the_cautious_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    own = select.clock
    gains = iter([0.85])  # of the stem, which comes first

    def clock(functions: dict[Any, Any], *rest: Any) -> dict[Any, float]:
        own(functions, 0.0)
        if "cautious" in functions:
            return {key: 1.0 - 0.5 * (key == "cautious") for key in functions}
        gain = next(gains, 0.5)
        return {key: 1.0 if key in DENSE else gain for key in functions}

    monkeypatch.setattr(select, "clock", clock)
    report = optimize_(small(), pictures(), seconds=0)
    methods = {layer.name: layer.method for layer in report.plan.layers}
    assert report.choice == "cautious" and methods["stem"] in DENSE
    assert methods["blocks.0.conv1"] in SPARSE and methods["blocks.1.conv2"] in SPARSE
    assert {layer.name: layer.choice for layer in report.layers}["stem"] in SPARSE


@pytest.mark.parametrize(("ours", "used"), [(0.1, False), (10.0, True)])
def test_leaving_a_chain_has_its_price(ours: float, used: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only kernels of ours are links of chains, torch's are not. ours: milliseconds of ours."""
    own = select.clock

    def clock(functions: dict[Any, Any], *rest: Any) -> dict[Any, float]:
        own(functions, 0.0)
        return {key: 20.0 if isinstance(key, Tiling) else ours if key in OURS else 0.08 for key in functions}

    monkeypatch.setattr(select, "clock", clock)
    stem = optimize_(small(), pictures(), seconds=0).layers[0]
    assert stem.choice in (TORCH if used else OURS)


@pytest.mark.parametrize(("time", "used"), [(1.05, True), (1.3, False)])
def test_a_kernel_of_ours_is_used_if_it_is_nearly_the_fastest(
    monkeypatch: pytest.MonkeyPatch, time: float, used: bool
) -> None:
    own = select.clock

    def clock(functions: dict[Any, Any], *rest: Any) -> dict[Any, float]:
        own(functions, 0.0)
        return {
            key: {"original": 2.0, "depthwise": time, "direct": time, "winograd4": 1.1}.get(key, 1.0)
            for key in functions
        }

    monkeypatch.setattr(select, "clock", clock)
    network, x = small(), pictures()
    network.blocks[1].conv2 = nn.Conv2d(32, 32, 3, padding=1, dilation=1, groups=4)
    expected = logits(network, x)
    report = optimize_(network, x, seconds=0)
    methods = {layer.name: layer.method for layer in report.plan.layers}
    assert report.choice == "dense" and report.difference < 1e-5
    assert {methods.pop("wide"), methods.pop("blocks.1.conv2")} <= {*TORCH}  # others cannot compute these
    assert methods.pop("depthwise") == ("depthwise" if used else "torch")
    assert methods.pop("stem") == ("direct" if used else "torch")
    assert set(methods.values()) == {"winograd"}
    assert torch.allclose(logits(network, x), expected, atol=1e-4)


def test_a_plan_that_changes_the_output_is_not_used(favoured: None) -> None:
    """Here a convolution is reached by a way that cannot be exchanged, so that folding its norm does harm."""
    network = small()
    hidden = network.stem
    network.forward = lambda x: network.fc(  # type: ignore[method-assign]
        network.wide(network.relu(network.norm(hidden(x)))).mean((2, 3))
    )
    before = logits(network, pictures())
    report = optimize_(network, pictures(), seconds=0)
    assert report.choice == "original" and torch.equal(logits(network, pictures()), before)


def test_a_plan_on_disk(tmp_path: Path, favoured: None) -> None:
    network, x = small(), pictures()
    plan = optimize_(network, x, seconds=0).plan
    plan.save(tmp_path / "plan.json")
    loaded = Plan.load(tmp_path / "plan.json")
    assert loaded == plan
    other = small(seed=5)
    before = logits(other, x)
    apply_(other, loaded)
    assert is_planned(other) and torch.allclose(logits(other, x), before, atol=1e-4)
    apply_(other, loaded)  # in place of what there is
    restore_(other)
    assert torch.equal(logits(other, x), before)
    with pytest.raises(ValueError, match="made for another network"):
        apply_(small(width=16), loaded)
    with pytest.raises(ValueError, match=r"stem should be Conv2d, and is nothing of that name"):
        apply_(nn.Sequential(nn.Conv2d(3, 4, 3)), loaded)


def test_a_plan_with_the_former_names_is_refused(tmp_path: Path) -> None:
    layer = plans.LayerPlan("x", Geometry(3, 8, 8, 4, (3, 3)), "ring-patterns", Tiling(True, 16, 1))
    Plan((layer,), {}).save(tmp_path / "plan.json")
    former = (tmp_path / "plan.json").read_text().replace("ring-patterns", "cps")
    (tmp_path / "plan.json").write_text(former)
    fault = "plan.json is no plan: x: method is 'cps', expected .* ring-numbered or ring-patterns: tune again"
    with pytest.raises(ValueError, match=fault):
        Plan.load(tmp_path / "plan.json")


@pytest.mark.parametrize(("key", "value"), [("processor", "another"), ("threads", 64), ("torch", "1.0")])
def test_a_plan_of_another_machine_is_refused(key: str, value: object, favoured: None) -> None:
    network = small()
    plan = optimize_(network, pictures(), seconds=0).plan
    restore_(network)
    plan.conditions[key] = value
    with pytest.raises(
        ValueError, match=f"made under other conditions: {key} .*. Tune again on this machine"
    ):
        apply_(network, plan)
    assert not is_planned(network)
    apply_(network, plan, check=False)
    assert is_planned(network)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"format": "other"}, "format is 'other' 1, expected"),
        ({"layers": [{}]}, "name is missing"),
        ({"layers": 3}, "is no plan"),
        ({"more": 1}, "'more' is not a field"),
    ],
)
def test_a_file_that_is_no_plan(change: dict[str, Any], fault: str, tmp_path: Path) -> None:
    path = tmp_path / "plan.json"
    Plan((), {}).save(path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=fault):
        Plan.load(path)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"method": "magic"}, "method is 'magic'"),
        ({"method": "ring-numbered"}, "ring-numbered, which needs a tiling: tune again"),
        ({"tiling": TILED}, "prepacked, and its tiling is of ring-patterns"),
        ({"tiling": TILED, "method": "ring-numbered"}, "ring-numbered, and its tiling is of ring-patterns"),
        ({"geometry": {"channels": 3}}, "x: height is missing"),
        ({"tiling": {"a": 1}, "method": "ring-patterns"}, "x: patterns is missing"),
    ],
)
def test_a_layer_that_is_none(change: dict[str, Any], fault: str) -> None:
    layer = plans.LayerPlan("x", Geometry(3, 8, 8, 4, (3, 3)), "prepacked")
    document = json.loads(json.dumps(layer.to_json()))
    assert plans.LayerPlan.of(document) == layer
    with pytest.raises(ValueError, match=fault):
        plans.LayerPlan.of(document | change)


def test_a_model_in_training_is_refused() -> None:
    with pytest.raises(ValueError, match=r"call model\.eval\(\) first"):
        optimize_(small().train(), pictures())


def test_a_network_without_convolutions() -> None:
    network = nn.Sequential(nn.Flatten(), nn.Linear(768, 4)).eval()
    report = optimize_(network, pictures(), seconds=0)
    assert not report.layers and not is_planned(network)
