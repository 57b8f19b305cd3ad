"""Networks of torchvision and timm, which are stand-ins here."""

import enum
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from dnnjpeg.networks.load import load_network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def stand_in(monkeypatch: pytest.MonkeyPatch, package: str, **functions: object) -> None:
    for name in {package, package.split(".")[0]}:
        module = ModuleType(name)
        vars(module).update(functions)
        monkeypatch.setitem(sys.modules, name, module)


class Flat(nn.Module):
    def __init__(self, bias: float = 0.0) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.full((5,), bias))

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))[:, None] + self.bias


class Weights(enum.Enum):
    V1 = 1.0
    V2 = 2.0
    DEFAULT = 2.0

    def transforms(self) -> SimpleNamespace:
        if self is Weights.V2:  # torchvision's ImageClassification keeps lists
            return SimpleNamespace(
                crop_size=[24],
                resize_size=[28],
                interpolation=SimpleNamespace(value="bilinear"),
                mean=list(MEAN),
                std=list(STD),
            )
        raise AssertionError("not the default weights")


def test_torchvision(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def get_model(name: str, weights: Weights | None) -> Flat:
        asked.append((name, weights))
        return Flat(weights.value if weights else 0.0)

    stand_in(monkeypatch, "torchvision.models", get_model_weights=lambda name: Weights, get_model=get_model)
    network = load_network("torchvision:flat")
    assert network.name == "flat" and network.preprocess == Preprocess(24, MEAN, STD, 28, "bilinear")
    assert torch.equal(network.module.bias, torch.full((5,), 2.0))
    save_file({"bias": torch.arange(5.0)}, tmp_path / "own.safetensors")
    own = load_network("torchvision:flat", weights=tmp_path / "own.safetensors")
    assert torch.equal(own.module.bias, torch.arange(5.0)) and own.preprocess == network.preprocess
    assert asked == [("flat", Weights.V2), ("flat", None)]  # nothing is fetched that is not used


def test_torchvision_without_a_classifier(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(name: str) -> None:
        raise ValueError(f"Unknown model {name}")

    stand_in(monkeypatch, "torchvision.models", get_model_weights=unknown)
    with pytest.raises(ValueError, match="torchvision:flat cannot be made: Unknown model flat"):
        load_network("torchvision:flat")
    detector = SimpleNamespace(DEFAULT=SimpleNamespace(transforms=SimpleNamespace))
    stand_in(monkeypatch, "torchvision.models", get_model_weights=lambda name: detector)
    with pytest.raises(ValueError, match="torchvision has no preprocessing of a classifier for it"):
        load_network("torchvision:flat")


def timm_model(**config: object) -> Flat:
    model = Flat()
    model.pretrained_cfg = {"input_size": (3, 20, 20), "mean": MEAN, "std": STD, "crop_pct": 0.9, **config}
    return model


def test_timm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    asked = []

    def create_model(name: str, pretrained: bool) -> Flat:
        asked.append((name, pretrained))
        return timm_model()

    stand_in(monkeypatch, "timm", create_model=create_model)
    assert load_network("timm:flat.a1_in1k").preprocess == Preprocess(20, MEAN, STD, 22)
    torch.save({"bias": torch.arange(5.0)}, tmp_path / "own.pt")
    load_network("timm:flat.a1_in1k", weights=tmp_path / "own.pt")
    assert asked == [("flat.a1_in1k", True), ("flat.a1_in1k", False)]
    stand_in(monkeypatch, "timm", create_model=lambda name, pretrained: timm_model(input_size=(3, 20, 30)))
    with pytest.raises(ValueError, match=r"takes pictures of 30 x 20, expected a square; or give the module"):
        load_network("timm:flat")
    stand_in(monkeypatch, "timm", create_model=lambda name, pretrained: timm_model(mean=(0.5,)))
    with pytest.raises(ValueError, match=r"preprocessing of timm:flat is not known: mean is \(0.5,\)"):
        load_network("timm:flat")


@pytest.mark.parametrize("package", ["torchvision", "timm"])
def test_a_package_that_is_not_installed(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in ("torchvision", "torchvision.models", "timm"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ValueError, match=rf"there is no module {package}.*: pip install {package}"):
        load_network(f"{package}:resnet50")


def test_a_package_that_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "timm.py").write_text("import no_such_package")
    monkeypatch.delitem(sys.modules, "timm", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        ValueError, match=r"timm:x cannot be imported: ModuleNotFoundError: .*no_such_package"
    ):
        load_network("timm:x")


def flat_with(monkeypatch: pytest.MonkeyPatch, preprocess: object) -> str:
    """The spec of a function that returns a network with this attribute."""

    def flat() -> Flat:
        net = Flat()
        net.preprocess = preprocess
        return net

    stand_in(monkeypatch, "own_nets", flat=flat)
    return "own_nets:flat"


def processor(**fields: object) -> SimpleNamespace:
    """As ViTImageProcessor has them."""
    return SimpleNamespace(**{
        "size": {"height": 24, "width": 24}, "image_mean": list(MEAN), "image_std": list(STD), "resample": 2,
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True, **fields,
    })  # fmt: skip


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (Weights.V2.transforms(), Preprocess(24, MEAN, STD, 28, "bilinear")),
        (processor(), Preprocess(24, MEAN, STD, 24, "bilinear")),
        (processor(resample=3, do_normalize=False), Preprocess(24, (0, 0, 0), (1, 1, 1), 24, "bicubic")),
        (
            processor(size={"shortest_edge": 28}, crop_size={"height": 24, "width": 24}, do_center_crop=True),
            Preprocess(24, MEAN, STD, 28, "bilinear"),
        ),
        (processor(size={"shortest_edge": 28}, crop_pct=0.875), Preprocess(28, MEAN, STD, 32, "bilinear")),
    ],
)
def test_preprocess_may_be_an_object_of_torchvision_or_transformers(
    monkeypatch: pytest.MonkeyPatch, given: object, expected: Preprocess
) -> None:
    assert load_network(flat_with(monkeypatch, given)).preprocess == expected


def test_processors_that_cannot_be_followed(monkeypatch: pytest.MonkeyPatch) -> None:
    for given, message in (
        (processor(rescale_factor=1 / 127.5), "scales pixels by 0.00784314, expected 1/255"),
        (processor(size={"height": 20, "width": 30}), "takes pictures of 30 x 20, expected a square"),
    ):
        with pytest.raises(ValueError, match=message):
            load_network(flat_with(monkeypatch, given))


def test_a_model_of_transformers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its processor is what lies beside it, and its output has logits."""
    asked = []

    class AutoImageProcessor:
        @staticmethod
        def from_pretrained(name: str, local_files_only: bool) -> SimpleNamespace:
            asked.append((name, local_files_only))
            return processor()

    class Model(Flat):
        config = SimpleNamespace(_name_or_path="google/vit")

        def forward(self, x: Tensor) -> SimpleNamespace:  # type: ignore[override]
            return SimpleNamespace(logits=super().forward(x))

    stand_in(monkeypatch, "own_nets", flat=Model)
    stand_in(monkeypatch, "transformers", AutoImageProcessor=AutoImageProcessor)
    network = load_network("own_nets:flat")
    assert network.preprocess == Preprocess(24, MEAN, STD, 24, "bilinear") and asked == [("google/vit", True)]
    assert network(torch.zeros(2, 3, 24, 24)).shape == (2, 5)
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ValueError, match="give the module an attribute preprocess"):
        load_network("own_nets:flat")


def test_probabilities_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    def ending(last: nn.Module) -> None:
        net = nn.Sequential(Flat(), last)
        net.preprocess = {"size": 24, "mean": MEAN, "std": STD}
        stand_in(monkeypatch, "own_nets", flat=lambda: net)

    ending(nn.Softmax(1))
    with pytest.raises(ValueError, match="returns probabilities, expected logits: leave out the softmax"):
        load_network("own_nets:flat")
    for last in (nn.Sigmoid(), nn.Hardsigmoid()):
        ending(last)
        with pytest.raises(ValueError, match="returns probabilities, expected logits: leave out the sigmoid"):
            load_network("own_nets:flat")
    ending(nn.Hardtanh(0, 1))  # may be anything
    load_network("own_nets:flat")
