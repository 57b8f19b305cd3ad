"""Training: what it reaches, what it leaves alone, and that interruptions change nothing."""

import io
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

torch = pytest.importorskip("torch")

from tiny import CLASSES, PREPROCESS, classifier, pictures, published_layer  # noqa: E402
from torch import nn  # noqa: E402

from dnnjpeg import encode  # noqa: E402
from dnnjpeg.files.dataset import Dataset  # noqa: E402
from dnnjpeg.learn.batches import accuracies, augment, cut, read, recompress  # noqa: E402
from dnnjpeg.learn.jpegdl import JPEGLayer  # noqa: E402
from dnnjpeg.learn.recipe import Recipe, best_epoch  # noqa: E402
from dnnjpeg.learn.training import train  # noqa: E402
from dnnjpeg.networks.network import Network  # noqa: E402
from dnnjpeg.networks.preprocess import Preprocess  # noqa: E402
from dnnjpeg.networks.readings import compare  # noqa: E402
from dnnjpeg.table.library import standard_table  # noqa: E402

COUNT = 160
QUICK = Recipe(epochs=6, batch=32, lr=0.05, pad=2)


def network_of(module: nn.Module) -> Network:
    return Network("tiny", "tiny", "0", module.eval(), Preprocess.of(PREPROCESS), torch.device("cpu"))


def fresh(seed: int = 0) -> Network:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        layers = [nn.Conv2d(3, 16, 5, 2), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 24, 3, 2), nn.ReLU()]
        return network_of(
            nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(24, CLASSES))
        )


@pytest.fixture(scope="module")
def parts() -> tuple[Dataset, Dataset]:
    """Pictures that a tiny classifier has labelled: the rest, and a quarter."""
    some = pictures(COUNT)
    labels = network_of(classifier()).read(some).argmax(1)
    held_out, learning = Dataset(some, labels, tuple(map(str, range(COUNT))), "drawn").split(0.25, 0)
    return learning, held_out


def weights(network: Network) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in network.module.state_dict().items()}


def test_learns_and_keeps_the_best_epoch(parts) -> None:
    learning, held_out = parts
    network = fresh()
    chance = np.bincount(held_out.labels).max() / len(held_out)
    log = train(network, learning, held_out, replace(QUICK, epochs=15))
    best = best_epoch(log, QUICK, len(held_out))
    assert best.val_top1 >= max(epoch.val_top1 for epoch in log) - 0.5 / len(held_out) ** 0.5
    logits = network.read(held_out.pictures)
    found = compare(logits, logits, held_out.labels)
    assert found.top1.mean() == pytest.approx(best.val_top1, abs=1e-5)
    assert found.loss.mean() == pytest.approx(best.val_loss, abs=1e-4)
    assert best.val_top1 > chance + 0.15
    assert log[-1].loss < log[0].loss and [epoch.epoch for epoch in log] == list(range(1, 16))
    assert all(epoch.step is None and epoch.bytes is None for epoch in log)


def test_an_epoch_before_the_last_is_kept(parts, monkeypatch) -> None:
    """Where the labels' own network is left as it is for two epochs, and ruined by the third."""
    monkeypatch.setattr(Recipe, "fade", lambda self, share: 0.0 if share < 2 / 3 else 10.0)
    network, held_out = network_of(classifier()), parts[1]
    log = train(network, *parts, replace(QUICK, epochs=3, decay=0))
    assert [epoch.val_top1 > 0.9 for epoch in log] == [True, True, False]
    assert best_epoch(log, QUICK, len(held_out)).epoch == 2
    logits = network.read(held_out.pictures)
    assert compare(logits, logits, held_out.labels).top1.mean() == pytest.approx(log[1].val_top1, abs=1e-5)


def test_layer_is_trained_without_decay(parts) -> None:
    """Weight decay that would pull logarithms of steps to zero does not reach them."""
    layer = JPEGLayer(np.full((2, 64), 20.0))
    log = train(fresh(), *parts, replace(QUICK, epochs=2, decay=0.5, layer_lr=0.0), layer=layer)
    assert torch.allclose(layer.log_q.exp(), torch.tensor(20.0))
    assert log[0].step == pytest.approx((20, 20), abs=1e-3)
    train(fresh(), *parts, replace(QUICK, epochs=2), layer=layer)
    moved = (layer.log_q.exp() / 20).log().abs()
    assert 0.01 < moved.mean() < 0.5


def test_as_published_steps_are_trained_themselves(parts) -> None:
    """Two passes of one step each: Adam by hand, on derivatives of the published formulas, in double."""
    first = np.random.default_rng(3).uniform(2, 12, (2, 64))
    first[:, 40:50], first[:, 50:60] = 1e-5, 255
    layer = JPEGLayer(first, alpha=0.05, levels=255, least=1e-5, published=True)
    learning, held_out = parts
    recipe = Recipe(epochs=2, batch=len(learning), lr=0, layer_lr=0.003, schedule="steps", pad=0, flip=False)
    network = network_of(classifier())
    train(network, learning, held_out, recipe, layer=layer)

    exact = network.module.double()
    given = torch.from_numpy(learning.pictures).permute(0, 3, 1, 2).double()
    labels = torch.from_numpy(learning.labels)
    q, m, v = torch.tensor(first).float().double(), 0.0, 0.0
    for step in (1, 2):
        q.requires_grad_()
        logits = exact((published_layer(given, q, 0.05) / 255 - 0.5) / 0.25)
        loss = nn.functional.cross_entropy(logits, labels)
        (gradient,) = torch.autograd.grad(loss, q)
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        moved = (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        q = (q.detach() - 0.003 * moved).clamp(1e-5, 255)
    found = layer.q[0].detach().double()
    apart = (found - q).abs()  # most where the derivative changes its sign from step to step
    assert apart.median() < 2e-6 and apart.max() < 6e-4
    assert ((q - torch.tensor(first)).abs() > 0.005).float().mean() > 0.5
    assert (found[:, 40:50] == q[:, 40:50].float()).float().mean() > 0.2
    assert found.min().item() == pytest.approx(1e-5)
    assert dict(layer.named_parameters()).keys() == {"q"}


@pytest.mark.parametrize("price", [0.0, 1e-4])
def test_a_layer_left_as_it_is_costs_no_gradients(parts, price: float) -> None:
    """Of the steps, and of the pictures, which no layer needs."""
    for rate in (0.0, 0.03):
        layer, seen = JPEGLayer(np.full((2, 64), 20.0)), []
        layer.register_forward_hook(lambda _, given, out, seen=seen: seen.append((given[0], out)))
        network = fresh()
        before = weights(network)
        train(network, *parts, replace(QUICK, epochs=1, layer_lr=rate, price=price), layer=layer)
        assert any(out.requires_grad for _, out in seen) == (layer.log_q.grad is not None) == (rate > 0)
        assert not any(given.requires_grad for given, _ in seen)
        assert not torch.equal(weights(network)["0.weight"], before["0.weight"])


def test_price_makes_files_smaller(parts) -> None:
    sizes = {}
    for price in (1e-6, 3e-2):
        layer = JPEGLayer.from_point(standard_table().at(80), subsampling="4:4:4")
        log = train(fresh(), *parts, replace(QUICK, epochs=4, price=price, layer_lr=0.1), layer=layer)
        real = np.mean([len(layer.encode(picture)) for picture in parts[1].pictures])
        sizes[price] = real
        assert log[-1].bytes == pytest.approx(real, rel=0.25)
    assert sizes[3e-2] < 0.9 * sizes[1e-6]


@pytest.mark.parametrize("kind", ["plain", "layer", "distill"])
def test_resumed_is_as_if_never_interrupted(parts, tmp_path, kind) -> None:
    recipe = replace(QUICK, finetune="distill" if kind == "distill" else None)
    points = [standard_table().at(20)] if kind == "distill" else []

    def run(state, stop: int | None = None):
        network, layer = fresh(), JPEGLayer(np.full((2, 64), 9.0)) if kind == "layer" else None

        def interrupt(epoch) -> None:
            if epoch.epoch == stop:
                raise KeyboardInterrupt

        log = train(network, *parts, recipe, layer=layer, points=points, state=state, on_epoch=interrupt)
        return weights(network), log, layer

    whole, log, layer = run(None)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "state.pt", stop=2)
    again, log_again, layer_again = run(tmp_path / "state.pt")
    assert all(torch.equal(whole[key], again[key]) for key in whole)
    assert [replace(epoch, seconds=0) for epoch in log] == [replace(epoch, seconds=0) for epoch in log_again]
    if layer is not None:
        assert torch.equal(layer.log_q, layer_again.log_q)


def test_a_network_that_was_trained_has_no_way_back(parts, tmp_path) -> None:
    """Distilling goes by what the network read before: one that has moved since cannot say."""
    network, points = network_of(classifier()), [standard_table().at(10)]
    recipe = Recipe(finetune="distill", epochs=2, batch=16, lr=0.003, pad=0)

    def interrupt(epoch) -> None:
        if epoch.epoch == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(network, *parts, recipe, points=points, state=tmp_path / "state.pt", on_epoch=interrupt)
    with pytest.raises(
        ValueError, match="give the network and the options of that training, or delete the file"
    ):
        train(network, *parts, recipe, points=points, state=tmp_path / "state.pt")


def test_seed_says_what_comes_out(parts) -> None:
    def run(seed: int) -> list[float]:
        return [epoch.loss for epoch in train(fresh(), *parts, replace(QUICK, epochs=2, seed=seed))]

    assert run(0) == run(0) != run(1)


def test_state_of_another_training_is_refused(parts, tmp_path) -> None:
    state = tmp_path / "state.pt"
    train(fresh(), *parts, replace(QUICK, epochs=1), state=state)
    with pytest.raises(ValueError, match="state of another training"):
        train(fresh(), *parts, replace(QUICK, epochs=1, lr=0.1), state=state)
    with pytest.raises(ValueError, match="another training"):
        train(fresh(), *parts, replace(QUICK, epochs=1), layer=JPEGLayer(), state=state)
    learning, validation = parts
    for other in (
        replace(learning, pictures=255 - learning.pictures),
        replace(learning, labels=learning.labels[::-1].copy()),
    ):
        with pytest.raises(ValueError, match="another training"):
            train(fresh(), other, validation, replace(QUICK, epochs=1), state=state)
    state.unlink()
    train(fresh(), *parts, replace(QUICK, epochs=1), layer=JPEGLayer(), state=state)
    for other in (JPEGLayer(kappa=6), JPEGLayer(integer_steps=True), JPEGLayer(np.full((2, 64), 2.0))):
        with pytest.raises(ValueError, match="another training"):
            train(fresh(), *parts, replace(QUICK, epochs=1), layer=other, state=state)
    learned = JPEGLayer(learn_hardness=True)
    with pytest.raises(ValueError, match="another training"):
        train(fresh(), *parts, replace(QUICK, epochs=1), layer=learned, state=state)
    with pytest.raises(ValueError, match="another training"):
        train(fresh(1), *parts, replace(QUICK, epochs=1), layer=JPEGLayer(), state=state)
    state.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="is not the state of a training"):
        train(fresh(), *parts, replace(QUICK, epochs=1), state=state)


def test_batch_norm_only(parts) -> None:
    network = fresh()
    before = weights(network)
    train(network, *parts, replace(QUICK, epochs=2, finetune="bn"))
    after = weights(network)
    assert {key for key in before if not torch.equal(before[key], after[key])} == {"1.weight", "1.bias"}
    with pytest.raises(ValueError, match=r"no batch norms .*, and finetune 'bn' needs them: use 'all'"):
        train(network_of(classifier()), *parts, replace(QUICK, finetune="bn"))


def test_fine_tuning_keeps_statistics(parts) -> None:
    network = fresh()
    before = weights(network)
    train(network, *parts, replace(QUICK, epochs=2, finetune="all"))
    after = weights(network)
    assert torch.equal(before["1.running_mean"], after["1.running_mean"])
    assert not torch.equal(before["0.weight"], after["0.weight"])


def test_distillation_wins_back_what_files_take(parts) -> None:
    """Without labels: agreement with the originals on files of low quality grows."""
    learning, held_out = (replace(part, labels=None) for part in parts)
    point = standard_table().at(5)
    network = network_of(classifier())
    files, clean = recompress(held_out.pictures, [point]), network.read(held_out.pictures)
    before = compare(network.read(files), clean).divergence.mean()
    recipe = Recipe(finetune="distill", epochs=8, batch=16, lr=0.0003, decay=0, pad=0)
    log = train(network, learning, held_out, recipe, points=[point])
    after = compare(network.read(files), clean)
    best = best_epoch(log, recipe, len(held_out))
    assert log[0].epoch == 0 and log[0].val_loss == pytest.approx(before, rel=1e-3)
    assert after.divergence.mean() == pytest.approx(best.val_loss, rel=1e-3)
    assert after.agrees.mean() == pytest.approx(best.val_top1, abs=1e-5)
    assert best.val_loss < 0.8 * before


@pytest.mark.parametrize("form", ["hard", "file", "sampled"])
def test_validation_is_of_the_form_in_training(parts, form) -> None:
    layer = JPEGLayer(np.full((2, 64), 60.0), kappa=2)
    layer.form = form
    network, recipe = network_of(classifier()), Recipe(finetune="all", epochs=1, lr=0, layer_lr=0)
    log = train(network, *parts, recipe, layer=layer)

    def loss(form) -> float:
        logits = read(network, parts[1].pictures, layer, form)
        return compare(logits, logits, parts[1].labels).loss.mean()

    assert abs(log[0].val_loss - loss("soft")) > 1e-3
    if form == "sampled":  # drawn by the seed
        assert train(network, *parts, recipe, layer=layer)[0].val_loss == log[0].val_loss
    else:
        assert [epoch.val_loss for epoch in log] == pytest.approx([loss(form)] * 2, abs=1e-4)


def test_no_files_are_counted_before_the_first_pass(parts) -> None:
    recipe, layer = Recipe(finetune="all", epochs=1, lr=1e-4, price=1e-6), JPEGLayer(np.full((2, 64), 9.0))
    first, second = train(network_of(classifier()), *parts, recipe, layer=layer)
    assert first.bytes is None and second.bytes > 300


def test_fine_tuning_never_ends_worse(parts) -> None:
    """Where every epoch makes it worse, the network is left as it was."""
    network = network_of(classifier())
    before = weights(network)
    recipe = Recipe(finetune="all", epochs=2, batch=16, lr=0.5)
    log = train(network, *parts, recipe)
    assert best_epoch(log, recipe, len(parts[1])).epoch == 0 and log[0].loss is None
    assert all(torch.equal(value, before[key]) for key, value in weights(network).items())


def test_what_cannot_be_trained(parts) -> None:
    learning, held_out = parts
    for layer in (None, JPEGLayer(rounds=2)):
        with pytest.raises(
            ValueError, match=r"price is 0\.001, and needs a layer with one round: give one, or price 0"
        ):
            train(fresh(), learning, held_out, replace(QUICK, price=1e-3), layer=layer)
    with pytest.raises(ValueError, match="drawn has no labels: give labels, or use finetune 'distill'"):
        train(fresh(), replace(learning, labels=None), held_out, QUICK)
    with pytest.raises(ValueError, match=f"label 7, expected 0..{CLASSES - 1}, the classes of the network"):
        train(fresh(), replace(learning, labels=learning.labels + 4), held_out, QUICK)
    with pytest.raises(ValueError, match="16 x 16, expected at least 32 x 32"):
        train(fresh(), replace(learning, pictures=learning.pictures[:, :16, :16]), held_out, QUICK)
    with pytest.raises(ValueError, match=r"NaN or infinity .*after epoch 1"):
        train(fresh(), learning, held_out, replace(QUICK, lr=1e9))


def test_forms_of_reading(parts) -> None:
    network, layer = network_of(classifier()), JPEGLayer(np.full((2, 64), 30.0), levels=255)
    some = parts[1].pictures[:12]
    real = [np.array(Image.open(io.BytesIO(layer.encode(picture)))) for picture in some]
    expected = network.read(np.stack(real))
    assert np.array_equal(read(network, some, layer, "real"), expected)
    assert np.allclose(read(network, some, layer, "file"), expected, atol=1e-3)
    assert not np.allclose(read(network, some, layer), expected, atol=1e-3)
    assert layer.form == "soft"
    assert np.allclose(read(network, some), network.read(some))


def test_accuracies_by_what_stands_before(parts) -> None:
    network, layer, point = (
        network_of(classifier()),
        JPEGLayer(np.full((2, 64), 60.0)),
        standard_table().at(9),
    )
    test = parts[1]

    def right(logits) -> float:
        return (logits.argmax(1) == test.labels).mean()

    files = recompress(test.pictures, [point])
    assert accuracies(network, test, points=[point]) == pytest.approx(
        {"original": 1, "quality 9": right(read(network, files))}
    )
    forms = {"soft layer": "soft", "hard layer": "hard", "real files": "real"}
    expected = {name: right(read(network, test.pictures, layer, form)) for name, form in forms.items()}
    found = accuracies(network, test, layer, [point])
    assert found == pytest.approx(expected | {"quality 9": right(read(network, files, layer))})
    assert min(found.values()) < 1
    for labels, message in ((None, "has no labels"), (test.labels + CLASSES, "the label 7, expected 0..3")):
        with pytest.raises(ValueError, match=message):
            accuracies(network, replace(test, labels=labels))


def test_recompress_is_what_a_decoder_makes() -> None:
    some = pictures(5)
    points = [standard_table().at(quality) for quality in (10, 90)]
    for i, one in enumerate(recompress(some, points)):
        with Image.open(io.BytesIO(encode(some[i], points[i % 2]))) as file:
            assert np.array_equal(one, np.array(file))
    drawn = recompress(np.repeat(some[:1], 40, axis=0), points, np.random.default_rng(0))
    assert len(np.unique(drawn, axis=0)) == 2


@settings(max_examples=40, deadline=None)
@given(side=st.integers(8, 14), pad=st.integers(0, 3), flip=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_augmented_pictures_are_windows(side, pad, flip, seed) -> None:
    some = np.random.default_rng(seed).integers(1, 256, (3, side, side, 3), np.uint8)
    out = augment(some, 8, pad, flip, np.random.default_rng(seed))
    assert out.shape == (3, 8, 8, 3)
    for one, picture in zip(out, some, strict=True):
        padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (8, 8), axis=(0, 1))
        windows = windows.reshape(-1, 3, 8, 8).transpose(0, 2, 3, 1)
        straight = (windows == one).all(axis=(1, 2, 3)).any()
        mirrored = (windows == one[:, ::-1]).all(axis=(1, 2, 3)).any()
        assert straight or (flip and mirrored)


def test_cut_is_the_centre() -> None:
    some = np.arange(2 * 10 * 12 * 3).reshape(2, 10, 12, 3).astype(np.uint8)
    assert np.array_equal(cut(some, 8), some[:, 1:9, 2:10])
    assert np.array_equal(cut(some, 10), some[:, :, 1:11])
