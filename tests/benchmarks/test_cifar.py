"""benchmarks/cifar.py: the quality is chosen on training pictures, the figures are of test pictures."""

import json
import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).parents[2] / "benchmarks"))

import cifar


def report(gains: dict[int, float | None], cuts: dict[int, float | None], codec: str = "ours") -> dict:
    def change(value: float | None, by: float) -> dict[str, float | None]:
        known = value is not None
        return {"value": value, "low": value - by if known else None, "high": value + by if known else None}

    points = [
        {"quality": q, "metric_change": change(gains[q], 0.01), "bytes_change": change(cuts[q], 2)}
        for q in gains
    ]
    row = {"network": "net", "codec": codec, "points": points}
    return {"comparisons": [row | {"metric": "loss", "points": []}, row | {"metric": "top1"}]}


def test_quality_is_chosen_on_training_pictures(tmp_path, monkeypatch, capsys) -> None:
    tested = report({10: 0.05, 50: 0.02, 90: None}, {10: -3, 50: -30, 90: None})
    tested["comparisons"] += report({10: 0.0}, {10: 0.0}, "not read in training pictures")["comparisons"]
    learned = report({10: 0.01, 50: 0.04, 90: None}, {10: -8, 50: -5, 90: None})
    (tmp_path / "cifar").mkdir()
    (tmp_path / "cifar/net.json").write_text(json.dumps(tested))
    (tmp_path / "cifar/net_train.json").write_text(json.dumps(learned))
    monkeypatch.setattr(cifar, "RESULTS", tmp_path)
    monkeypatch.setattr(sys, "argv", ["cifar.py"])
    cifar.main()
    *_, row = capsys.readouterr().out.splitlines()
    assert row == "| net: ours | +2.0 (+1.0..+3.0), quality 50 | -3.0 % (-5.0..-1.0), quality 10 |"
    learned = report({10: None, 90: 0.04}, {10: None, 90: -1})
    (tmp_path / "cifar/net_train.json").write_text(json.dumps(learned))
    cifar.main()
    *_, row = capsys.readouterr().out.splitlines()
    assert (
        row == "| net: ours | beyond (beyond..beyond), quality 90 | beyond % (beyond..beyond), quality 90 |"
    )


@pytest.mark.parametrize("network", ["cifar_resnet20", "cifar_resnet56"])
def test_committed_reports_are_of_one_network_and_the_pictures_of_their_names(network: str) -> None:
    reports = [
        json.loads((cifar.RESULTS / "cifar" / f"{network}{part}.json").read_text()) for part in ("", "_train")
    ]
    assert reports[0]["networks"][network]["weights"] == reports[1]["networks"][network]["weights"]
    assert [one["data"]["source"] for one in reports] == ["cifar/test.npy", "cifar/train.npy"]
