"""What the tables are worth: the README's table, from the results of `dnnjpeg evaluate`, one file a network.

    dnnjpeg evaluate --model zoo.py:resnet18 --data val --labels val.csv --size 224 \
        --codec dnnjpeg:tables/resnet18.json@12,20,32,50,62,75,88 --codec mozjpeg@10,20,40,60,75,90 \
        --codec pillow-optimize,subsampling=4:4:4@10,20,35,50,75,90 \
        --reference pillow-optimize@20,50,75 -o benchmarks/results/tables/resnet18.json

and the like; the JSON of each network has its command, qualities around the points of its own table.
`python benchmarks/tables.py` prints the table.
"""

import json

from common import RESULTS


def main() -> None:
    """Print the table."""
    reports = [json.loads(file.read_text()) for file in sorted((RESULTS / "tables").glob("*.json"))]
    print("| bytes at equal loss, against Pillow's | quality 20 | quality 50 | quality 75 |")
    print("|---|---:|---:|---:|")
    seen = set()  # the peers of one network are in several reports
    for report in reports:
        for row in report["comparisons"]:
            network, codec = row["network"], row["codec"]
            if row["metric"] != "loss" or codec.startswith("dnnjpeg:standard") or (network, codec) in seen:
                continue
            seen.add((network, codec))
            cells = " | ".join(_cell(point["bytes_change"]) for point in row["points"])
            print(f"| {network}: {codec} | {cells} |")


def _cell(estimate: dict[str, float | None]) -> str:
    value, low, high = (estimate[key] for key in ("value", "low", "high"))
    if value is None:
        return "beyond"
    ends = [f"{end:+.0f}" if end is not None else "?" for end in (low, high)]
    return f"{value:+.1f} % ({ends[0]}..{ends[1]})"


if __name__ == "__main__":
    main()
