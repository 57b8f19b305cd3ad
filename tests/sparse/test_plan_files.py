"""Plans are data that anybody may have written: each is refused, or gives the network's own results."""

import json
import math
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

torch = pytest.importorskip("torch")

from layers import sparse_input, weights_for  # noqa: E402
from small_networks import is_planned, pictures, small  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from dnnjpeg.sparse import Plan, apply_, restore_  # noqa: E402
from dnnjpeg.sparse import plan as plans  # noqa: E402
from dnnjpeg.sparse.depthwise import Depthwise  # noqa: E402
from dnnjpeg.sparse.geometry import Geometry  # noqa: E402
from dnnjpeg.sparse.ring import RingConvolution  # noqa: E402
from dnnjpeg.sparse.tiling import Tiling, tilings  # noqa: E402

WIDTH = 16  # of the network: few tilings, as each is compiled
GEOMETRY = Geometry(WIDTH, 8, 8, WIDTH, (3, 3), (1, 1), (1, 1))


def layer(name: str, geometry: Geometry, method: str, **more: Any) -> plans.LayerPlan:
    return plans.LayerPlan(name, geometry, method, **more)


def whole() -> Plan:
    """For `small`, with all that a plan may have."""
    ring, numbered = Tiling(True, 16, 1, 3), Tiling(False, 16, 1, 1)
    first, second = "blocks.0.conv{}", "blocks.1.conv{}"
    return Plan(
        (
            layer("stem", Geometry(3, 16, 16, WIDTH, (3, 3), (2, 2), (1, 1)), "ring-patterns",
                  tiling=Tiling(True, 16, 1, 1), min_zeros=0.3, norm="norm", relu="relu",
                  dense="direct"),
            layer(first.format(1), GEOMETRY, "ring-patterns", tiling=ring, norm="blocks.0.bn1",
                  relu="blocks.0.relu", onward=first.format(2)),
            layer(first.format(2), GEOMETRY, "ring-numbered", tiling=numbered, norm="blocks.0.bn2"),
            layer(second.format(1), GEOMETRY, "prepacked", norm="blocks.1.bn1", relu="blocks.1.relu"),
            layer(second.format(2), GEOMETRY, "im2col", norm="blocks.1.bn2"),
            layer("depthwise", replace(GEOMETRY, groups=WIDTH), "depthwise"),
            layer("wide", Geometry(WIDTH, 8, 8, 48, (1, 3), (1, 1), (0, 0)), "channels_last"),
        ),
        plans.conditions(2),
        {"model": "file.py:function"},
    )  # fmt: skip


@pytest.fixture(scope="module")
def document(tmp_path_factory: pytest.TempPathFactory) -> Any:
    path = tmp_path_factory.mktemp("plans") / "plan.json"
    whole().save(path)
    return json.loads(path.read_text())


def outcome(document: Any, folder: Path) -> str:
    """Why a document is refused; "" where the network reads the same with it, checked here."""
    path = folder / "plan.json"
    path.write_text(json.dumps(document))
    network, x = small(WIDTH), pictures()
    with torch.inference_mode():
        before = network(x)
        try:
            apply_(network, Plan.load(path))
        except ValueError as error:
            assert not is_planned(network) and torch.equal(network(x), before)
            return str(error)
        for given in (x, x[:1]):
            assert torch.allclose(network(given), before[: len(given)], atol=1e-4)
        restore_(network)
        assert torch.equal(network(x), before)
    return ""


def test_the_whole_plan_is_used(document: Any, tmp_path: Path) -> None:
    assert outcome(document, tmp_path) == ""
    assert outcome(document | {"fused": True}, tmp_path) == ""


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("block", 17, "16"),
        ("block", 1, "16"),
        ("block", 0, "16"),
        ("block", -16, "16"),
        ("block", 65536, "16"),
        ("block", 128, "16"),  # most of it would be empty
        ("block", 16.0, "16"),
        ("block", True, "16"),
        ("block", "16", "16"),
        ("block", [16], "16"),
        ("block", None, "16"),
        ("filters", 0, "1"),
        ("filters", 2, "1"),  # of 16: the layer has as many
        ("filters", 5, "1"),
        ("filters", 10**30, "1"),
        ("ring_rows", 2, "1 or 3"),
        ("ring_rows", 0, "1 or 3"),
        ("ring_rows", -1, "1 or 3"),
        ("turned", True, "False"),
        ("turned", 0, "False"),
        ("patterns", 1, "False or True"),
    ],
)
def test_a_tiling_that_the_tiler_cannot_make(
    field: str, value: object, expected: str, document: Any, tmp_path: Path
) -> None:
    changed = json.loads(json.dumps(document))
    changed["layers"][1]["tiling"][field] = value
    reason = outcome(changed, tmp_path)
    assert f"blocks.0.conv1: tiling.{field} is {value!r}, expected {expected}" in reason


def test_tiler_and_check_agree(tmp_path: Path) -> None:
    """All that the tiler makes is accepted."""
    for geometry in (
        GEOMETRY,
        Geometry(300, 9, 9, 70, (1, 1)),
        Geometry(20, 19, 7, 20, (7, 1), (2, 1), (3, 0)),
        Geometry(20, 19, 7, 120, (5, 1), (1, 1), (3, 0)),
        Geometry(3, 30, 31, 64, (7, 7), (2, 2)),
    ):
        for patterns in (True, False):
            for tiling in tilings(geometry, patterns, 0.5):
                made = plans.LayerPlan("x", geometry, tiling.method, tiling)
                assert plans.LayerPlan.of(json.loads(json.dumps(made.to_json()))) == made  # fmt: skip


@pytest.mark.parametrize(
    ("place", "change", "fault"),
    [
        (0, {"norm": "blocks.0.bn1"}, "stem: norm is 'blocks.0.bn1'"),
        (0, {"norm": ["norm"]}, "stem: norm is"),
        (0, {"relu": "blocks.0.relu"}, "stem: relu is 'blocks.0.relu'"),
        (0, {"onward": "blocks.0.conv1"}, "stem: onward is 'blocks.0.conv1'"),  # the residual reads it too
        (0, {"min_zeros": "many"}, "stem: min_zeros is 'many'"),
        (0, {"min_zeros": math.nan}, "stem: min_zeros is nan"),
        (0, {"dense": "fast"}, "stem: dense is 'fast'"),
        (0, {"dense": "winograd"}, "stem: dense is winograd"),  # its stride is 2
        (1, {"onward": "blocks.0.conv1"}, "onward"),
        (2, {"relu": "blocks.0.relu"}, "relu is 'blocks.0.relu'"),  # the sum comes first
        (2, {"method": "depthwise", "tiling": None}, "depthwise"),
        (5, {"method": "im2col"}, "im2col"),
        (5, {"method": "ring-numbered", "tiling": Tiling(False, 16, 1)._asdict()}, "ring-numbered"),
        (6, {"method": "mec"}, "mec"),  # it is dilated
        (6, {"name": 7}, "name is 7"),
        (6, {"name": "stem"}, "stem"),
        (3, {"geometry": {**asdict(GEOMETRY), "kernel": [3.0, 3]}}, "geometry.kernel[0] is 3.0"),
        (3, {"geometry": {**asdict(GEOMETRY), "height": 10**9}}, "geometry"),
    ],
)  # fmt: skip
def test_a_plan_that_does_not_fit(
    place: int, change: dict[str, Any], fault: str, document: Any, tmp_path: Path
) -> None:
    changed = json.loads(json.dumps(document))
    changed["layers"][place] |= change
    assert fault in outcome(changed, tmp_path)


def test_lists_that_the_next_layer_cannot_read(document: Any, tmp_path: Path) -> None:
    changed = json.loads(json.dumps(document))
    wider = changed["layers"][2]
    wider["geometry"]["channels"] = wider["geometry"]["filters"] = 64
    wider["tiling"]["block"] = 64
    assert outcome(changed, tmp_path)


@pytest.mark.parametrize("key", ["threads", "batch"])
@pytest.mark.parametrize("value", [0, -1, 10**9, "2", None, 1.5])
def test_conditions_that_are_no_counts(key: str, value: object, document: Any, tmp_path: Path) -> None:
    changed = document | {"conditions": document["conditions"] | {key: value}}
    assert f"conditions.{key} is {value!r}" in outcome(changed, tmp_path)


def test_json_that_is_too_deep(tmp_path: Path) -> None:
    (tmp_path / "plan.json").write_text("[" * 100_000)
    with pytest.raises(ValueError, match="is no plan"):
        Plan.load(tmp_path / "plan.json")


def paths(value: Any, here: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places of all values in a document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(path for key, item in inner for path in paths(item, (*here, key)))]


NAMES = [*dict(small(WIDTH).named_modules()), "nothing", "ring-patterns", "ring-numbered", "im2col", "mec",
         "depthwise", "torch", "channels_last", "prepacked"]  # fmt: skip
SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-2, 130)
    | st.sampled_from(
        [17, 256, 65535, 65536, 2**31, 2**63, 10**30, 0.5, 3.0, 1e308, math.inf, -math.inf, math.nan]
    )
    | st.sampled_from(NAMES)
    | st.text(max_size=4)
)
VALUES = SCALARS | st.lists(SCALARS, max_size=3) | st.dictionaries(st.text(max_size=4), SCALARS, max_size=2)


@given(data=st.data())
@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_change_is_refused_or_harmless(data: st.DataObject, document: Any, tmp_path: Path) -> None:
    changed = json.loads(json.dumps(document))
    for _ in range(data.draw(st.integers(1, 3))):
        places = [path for path in paths(changed) if path and path[0] in ("layers", "fused", "conditions")]
        assume(places)
        *way, last = data.draw(st.sampled_from(places))
        holder = changed
        for key in way:
            holder = holder[key]
        what = data.draw(st.sampled_from(["replace", "replace", "replace", "delete", "copy"]))
        if what == "replace":
            holder[last] = data.draw(VALUES)
        elif what == "delete":
            del holder[last]
        else:
            *other, key = data.draw(st.sampled_from(places))
            source = changed
            for step in other:
                source = source[step]
            holder[last] = json.loads(json.dumps(source[key]))
    outcome(changed, tmp_path)


def ring(**change: Any) -> RingConvolution:
    options = {"geometry": GEOMETRY, "weights": weights_for(GEOMETRY, 0), "bias": None,
               "tiling": Tiling(True, 16, 1, 3)} | change  # fmt: skip
    return RingConvolution(**options)


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        ({"weights": torch.zeros(16, 16, 3, 2)}, "weights are"),
        ({"weights": torch.zeros(16, 8, 3, 3)}, "weights are"),
        ({"weights": torch.zeros(16, 16, 3, 3, dtype=torch.float64)}, "weights are"),
        ({"bias": torch.zeros(15)}, "bias is"),
        ({"tiling": Tiling(True, 17, 1)}, "tiling.block is 17"),
        ({"tiling": Tiling(True, 16, 0)}, "tiling.filters is 0"),
        ({"tiling": Tiling(True, 16, 1, 2)}, "tiling.ring_rows is 2"),
        ({"geometry": Geometry(16, 8, 8, 16, (3, 3), (2, 1), (1, 1))}, "tiling.ring_rows is 3"),
        ({"geometry": Geometry(16, 8, 8, 16, (3, 3), groups=2)}, "groups"),
    ],
)
def test_the_ring_kernel_checks_what_it_is_made_of(change: dict[str, Any], fault: str) -> None:
    with pytest.raises(ValueError, match=fault):
        ring(**change)


def test_the_ring_kernel_checks_what_it_is_given() -> None:
    made, x = ring(), sparse_input(GEOMETRY, 0.5, 2, True, 0)
    wrong: list[tuple[Callable[[], object], str]] = [
        (lambda: made.compress(x[:, :8]), "the input is"),
        (lambda: made.compress(x[:, :, :7]), "the input is"),
        (lambda: made.compress(x.double()), "the input is"),
        (lambda: made.compress(x[0]), "the input is"),
        (lambda: made.convolve(ring(tiling=Tiling(False, 16, 1, 3)).compress(x)), "lists"),
        (lambda: made.convolve(made.compress(x), onward=Tiling(True, 32, 1)), "onward"),
        (lambda: made.convolve(made.compress(x), residual=torch.zeros(1, 16, 8, 8)), "residual"),
    ]
    other = Geometry(16, 9, 9, 16, (3, 3), (1, 1), (1, 1))
    taller = ring(geometry=other).compress(sparse_input(other, 0.5, 2, True, 0))
    wrong.append((lambda: made.convolve(taller), "lists"))
    for call, fault in wrong:
        with pytest.raises(ValueError, match=fault):
            call()


def test_the_depthwise_kernel_checks_what_it_is_given() -> None:
    geometry = replace(GEOMETRY, groups=16)
    weights = torch.zeros(16, 1, 3, 3)
    wrong: list[tuple[Any, str]] = [
        ((GEOMETRY, weights, None), "groups"),
        ((geometry, torch.zeros(16, 1, 3, 2), None), "weights are"),
        ((geometry, weights, torch.zeros(3)), "bias is"),
    ]
    for options, fault in wrong:
        with pytest.raises(ValueError, match=fault):
            Depthwise(*options)
    with pytest.raises(ValueError, match="the input is"):
        Depthwise(geometry, weights, None)(torch.zeros(1, 16, 8, 7))


@pytest.mark.parametrize("name", ["cpo", "cps"])
def test_the_kernels_of_the_papers_check_their_weights(name: str) -> None:
    from importlib import import_module

    module: Any = import_module(f"dnnjpeg.sparse.{name}")
    structure = module.compress(sparse_input(GEOMETRY, 0.5, 1, False, 0), GEOMETRY)
    with pytest.raises(ValueError, match="weights are"):
        module.convolve(structure, torch.zeros(16, 16, 3, 5))


class Reused(nn.Module):
    """A convolution called twice: what follows it once does not follow it always."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 3, 1), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(self.relu(self.conv(x)))


def test_a_convolution_that_is_called_twice() -> None:
    one = layer("conv", Geometry(3, 16, 16, 3, (1, 1)), "channels_last", relu="relu")
    with pytest.raises(ValueError, match="conv: relu is 'relu'"):
        apply_(Reused().eval(), Plan((one,), plans.conditions(1)))
