"""Image encodings that DVBPR needs for its AUC, read from the learning curves that model files keep.

vbpr train --model dvbpr --data FOLDER --image-size 64 --epochs 2 --out artifacts/plain.model.h5
vbpr train --model dvbpr --preset efficient --data FOLDER --image-size 64 --epochs 10 --out artifacts/efficient.model.h5
python bench/dvbpr.py artifacts/plain.model.h5 artifacts/efficient.model.h5

The first file is what the others are compared with. Encodings count those of a validation after each epoch, too.
"""

import argparse
from pathlib import Path

from common import machine, table

from vbpr.evaluation.evaluate import evaluate
from vbpr.stores.model.factors import Factors


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", type=Path, nargs="+")
    files = parser.parse_args().models
    curves: dict[str, list[dict[str, float]]] = {}
    rows: list[dict[str, object]] = []
    for path in files:
        factors, name = Factors.load(path), path.name.split(".")[0]
        config, summary, curves[name] = factors.about["config"], evaluate(factors).summary(), factors.about["curve"]
        rows.append(
            {"model": name, "px": config["image_size"], "epochs": config["epochs"]}
            | {"encodings": f"{factors.about['encoded']:,}"}
            | {part: f"{summary[part]['auc']:.3f}" for part in ("all", "cold", "unseen") if "auc" in summary[part]}
            | ({"seconds": f"{factors.about['seconds']:,.0f}"} if "seconds" in factors.about else {})
        )
    print(f"{summary['data']}; {machine()}\n\ntest AUC\n\n{table(rows)}\n\nvalidation AUC along the way\n")
    points = [
        {"model": name, "epoch": p["epoch"], "encodings": f"{p['encoded']:,}", "validation AUC": f"{p['auc']:.4f}"}
        for name, curve in curves.items()
        for p in curve
    ]
    print(table(points))
    plain, *others = curves
    reached: list[dict[str, object]] = []
    for point in curves[plain]:
        line: dict[str, object] = {"validation AUC": f"{point['auc']:.4f}", plain: f"{point['encoded']:,}"}
        for name in others:
            first = next((p["encoded"] for p in curves[name] if p["auc"] >= point["auc"]), None)
            line[name] = "-" if first is None else f"{first:,} ({point['encoded'] / first:.1f} times fewer)"
        reached.append(line)
    print(f"\nencodings until the validation AUC of each epoch of {plain} is reached\n\n{table(reached)}")


if __name__ == "__main__":
    main()
