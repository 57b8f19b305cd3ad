"""Weights of a user's own: what fits, what is refused, and what tells them apart."""

from collections.abc import Callable
from pathlib import Path

import pytest

torch = pytest.importorskip("torch")

from safetensors.torch import save_file  # noqa: E402

from dnnjpeg.networks.load import Network  # noqa: E402

STATE = {
    "fc.weight": torch.ones(4, 3),
    "fc.bias": torch.zeros(4),
    "norm.weight": torch.ones(3),
    "norm.bias": torch.zeros(3),
    "norm.running_mean": torch.zeros(3),
    "norm.running_var": torch.ones(3),
    "norm.num_batches_tracked": torch.tensor(0),
}


def save(path: Path, state: object) -> Path:
    if path.suffix == ".safetensors":
        save_file(state, path)
    else:
        torch.save(state, path)
    return path


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".PTH"])
def test_weights_of_your_own(make: Callable[..., Network], tmp_path: Path, suffix: str) -> None:
    network = make(weights=save(tmp_path / f"own{suffix}", STATE))
    for key, value in network.module.state_dict().items():
        assert torch.equal(value, STATE[key]), key
    older = {key: value for key, value in STATE.items() if key != "norm.num_batches_tracked"}
    assert make(weights=save(tmp_path / f"older{suffix}", older)).digest == network.digest


@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_weights_that_do_not_fit(make: Callable[..., Network], tmp_path: Path, suffix: str) -> None:
    state = {**STATE, "head.weight": torch.ones(1), "fc.weight": torch.ones(5, 3)}
    del state["norm.bias"]
    file = save(tmp_path / f"own{suffix}", state)
    with pytest.raises(
        ValueError,
        match=r"the network's 7 tensors; 1 missing: \['norm.bias'\]; 1 unexpected: \['head.weight'\]; "
        r"1 of another shape: \['fc.weight'\]",
    ):
        make(weights=file)
    with pytest.raises(ValueError) as caught:
        make(weights=save(tmp_path / f"other{suffix}", {f"layer{i}": torch.ones(1) for i in range(999)}))
    assert "999 unexpected" in str(caught.value) and len(str(caught.value)) < 600


class Intruder:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return pytest.fail, ("the pickle was executed",)


def test_files_that_hold_no_weights(make: Callable[..., Network], tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"own\.pt holds \['epoch', 'state_dict'\], expected a state dict"):
        make(weights=save(tmp_path / "own.pt", {"epoch": 3, "state_dict": STATE}))
    with pytest.raises(ValueError, match=r"own\.pt holds 'list', expected a state dict"):
        make(weights=save(tmp_path / "own.pt", [1, 2]))
    for content in (b"", b"no weights"):
        for name in ("own.pt", "own.safetensors"):
            (tmp_path / name).write_bytes(content)
            with pytest.raises(ValueError, match=rf"{name} cannot be read as a state dict"):
                make(weights=tmp_path / name)
    with pytest.raises(
        ValueError, match=r"own\.pt cannot be read as a state dict: it is damaged, or holds more than"
    ):
        make(weights=save(tmp_path / "own.pt", {"fc.weight": Intruder()}))
    with pytest.raises(
        ValueError, match=r"nets\.py cannot be read .*: expected a \.safetensors, \.pt or \.pth"
    ):
        make(weights=tmp_path / "nets.py")
    for name in ("none.pt", "none.safetensors"):
        with pytest.raises(FileNotFoundError, match=name):
            make(weights=tmp_path / name)


def test_the_digest_is_of_the_weights_alone(make: Callable[..., Network]) -> None:
    digest = make().digest
    assert len(digest) == 16 and int(digest, 16) >= 0
    assert make("net.preprocess['size'] = 8").digest == digest
    assert make("net = net.to(memory_format=torch.channels_last)").digest == digest
    assert make("net._modules = dict(reversed(net._modules.items()))").digest == digest
    others = {
        make("net.fc.weight.data[0, 0] += 1e-6").digest,
        make("net.norm.running_mean[0] = 1").digest,
        make("net.fc.weight.data = net.fc.weight.data.flip(0)").digest,
        make("net.fc, net.norm, net.fb = nn.Identity(), net.norm, net.fc", "net.fc = net.fb").digest,
    }
    assert len(others) == 4 and digest not in others
