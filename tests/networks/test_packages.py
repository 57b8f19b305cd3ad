"""Networks of torchvision and timm, which are stand-ins here."""

import enum
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402
from torch import Tensor, nn  # noqa: E402

from dnnjpeg.networks.load import Preprocess, load_network  # noqa: E402

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
