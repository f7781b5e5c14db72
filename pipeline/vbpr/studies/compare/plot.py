"""compare.png: bars of AUC with their intervals."""

from pathlib import Path
from typing import Any

import numpy as np

from ...base.files import replacing
from ...evaluation.evaluate import PARTS

COLOURS = {"all": "#2b5c8a", "cold": "#e08a2e", "unseen": "#7a7a7a"}


def draw_bars(result: dict[str, Any], path: Path) -> None:
    """Draw a panel for each data set, and in it for each method a bar for all, cold and unseen items.

    Pillow draws it, so that nothing more needs to be installed.
    """
    from PIL import Image, ImageDraw, ImageFont

    bar, gap, top, height, left = 26, 26, 40, 300, 60
    widths = [left + len(data["methods"]) * (3 * bar + gap) + gap for data in result["data"]]
    canvas = Image.new("RGB", (max(360, sum(widths)), top + height + 90), "white")
    pen, small, large = ImageDraw.Draw(canvas), ImageFont.load_default(12), ImageFont.load_default(15)

    def y(value: float) -> float:
        return top + height * (1 - value)

    x0 = 0
    for data, width in zip(result["data"], widths, strict=True):
        pen.text((x0 + left, 10), f"AUC on {data['title']}", "black", large)
        for tick in np.arange(0, 1.01, 0.1):
            pen.line((x0 + left, y(tick), x0 + width, y(tick)), "#dddddd")
            pen.text((x0 + left - 30, y(tick) - 7), f"{tick:.1f}", "#444444", small)
        pen.line((x0 + left, y(0.5), x0 + width, y(0.5)), "#aa0000")
        for n, row in enumerate(data["methods"]):
            x = x0 + left + gap + n * (3 * bar + gap)
            for k, part in enumerate(PARTS):
                if "auc" not in row[part]:
                    continue
                at, value = x + k * bar, row[part]["auc"]
                low, high = row[part]["auc_interval"]
                pen.rectangle((at, y(value), at + bar - 3, y(0)), COLOURS[part])
                pen.line((at + bar // 2 - 1, y(low), at + bar // 2 - 1, y(high)), "black", 2)
                pen.text((at - 1, y(high) - 15), f"{value:.2f}".removeprefix("0"), "black", small)
            pen.text((x, top + height + 8), row["method"][:14], "black", small)
        x0 += width
    for k, (part, colour) in enumerate(COLOURS.items()):
        pen.rectangle((left + k * 90, top + height + 40, left + k * 90 + 12, top + height + 52), colour)
        pen.text((left + k * 90 + 18, top + height + 39), part, "black", small)
    pen.text((left, top + height + 62), "red line: chance; whiskers: 95% interval over users", "#444444", small)
    with replacing(path) as temporary:
        canvas.save(temporary, "PNG")


__all__ = ["draw_bars"]
