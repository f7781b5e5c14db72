"""Make the embedded sample catalogue: CC0 clothing photographs and the purchases of simulated shoppers.

    python tools/make_sample.py CLOTHING_CC0_FOLDER pipeline/vbpr/sample

The source folder holds `items.csv` (item_id, category, kids) and `images/<item_id>.jpg`, both from
https://github.com/alexeygrigorev/clothing-dataset. Colour and pattern are measured from the pixels, so what a
shopper likes can be seen in the picture. utility(u, i) = taste_u . attributes_i + popularity_i. Takes about 3 minutes.
"""

import argparse
import csv
import io
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import h5py
import numpy as np
from PIL import Image, ImageOps
from scipy import ndimage

SEED = 20
SHOPPERS, PURCHASES, SHOPPER_TASTES = 800, (8, 25), (0.6, 0.3, 0.1)  # shares of shoppers with 1, 2, 3 tastes
CATEGORY_WEIGHT, COLOUR_WEIGHT, PATTERN_WEIGHT = 3.8, 2.2, 1.2
POPULARITY, NEW_ARRIVALS = 0.45, 0.12  # spread of the popularity bias; share of items that are not on sale yet
START, DAYS = 1_740_960_000, 91  # 2025-03-03 00:00 UTC, about three months
PER_CATEGORY, SIDE, QUALITY = 140, 128, 86
MEASURE_SIDE = 192  # gradients depend on the scale: the thresholds below were set at this size

CATEGORIES = {  # the source's label -> (name in titles, slug of the item id)
    "T-Shirt": ("T-shirt", "tshirt"), "Longsleeve": ("long-sleeved top", "longsleeve"), "Shirt": ("shirt", "shirt"),
    "Polo": ("polo shirt", "polo"), "Undershirt": ("tank top", "tanktop"), "Hoodie": ("hoodie", "hoodie"),
    "Outwear": ("jacket", "jacket"), "Blazer": ("blazer", "blazer"), "Dress": ("dress", "dress"),
    "Skirt": ("skirt", "skirt"), "Pants": ("trousers", "trousers"), "Shorts": ("shorts", "shorts"),
    "Shoes": ("shoes", "shoes"), "Hat": ("hat", "hat"),
}  # fmt: skip
COLOURS = {  # sRGB values as they look in indoor photographs; a name may have several
    "black": [(28, 28, 30)], "grey": [(80, 80, 82), (140, 140, 140)], "white": [(205, 204, 202), (240, 240, 240)],
    "beige": [(195, 175, 150), (160, 140, 115)], "brown": [(95, 65, 50), (140, 95, 60), (62, 45, 38)],
    "navy": [(38, 44, 72), (50, 58, 85)], "blue": [(50, 90, 170), (40, 60, 150), (30, 130, 190)],
    "light blue": [(135, 165, 200), (105, 130, 165)], "red": [(175, 30, 40), (120, 25, 40)],
    "green": [(60, 110, 70), (30, 130, 125), (90, 95, 60), (130, 190, 150)],
    "pink": [(220, 150, 165), (205, 50, 120), (230, 90, 120)], "yellow": [(220, 185, 60), (235, 225, 90)],
    "purple": [(110, 70, 130), (70, 40, 80), (160, 130, 190)], "orange": [(220, 110, 50)],
}  # fmt: skip
LEFT_OUT = {"fae00db0-b571-4947-8a6a-ad7edb132a75"}  # a political slogan
PATTERNS = ("plain", "striped", "patterned")
ATTRIBUTES = [name for name, _ in CATEGORIES.values()] + list(COLOURS) + list(PATTERNS)
README = """\
# The embedded sample

{photographs:,} photographs of clothes and {purchases:,} purchases by {shoppers} shoppers over {days} days.
**The shoppers are simulated.** Nobody bought these clothes: figures on this sample show that the software works, and
say nothing about how well a method serves real people.

- `images.tar`: the photographs, {side} px on the longer side, `<item_id>.jpg`. They come from the clothing dataset
  (https://github.com/alexeygrigorev/clothing-dataset), CC0 1.0; `source` in `items.csv` names the original.
- `items.csv`: item_id, title, category, colour, pattern, source. The category is the data set's label. Colour and
  pattern are measured from the pixels of the garment, so a few are wrong: crumpled cloth may count as patterned,
  thin black and white stripes as grey. Children's clothes and photographs that cannot be measured clearly are left out.
- `interactions.csv`: user_id, item_id, timestamp (seconds since 1970).
- `oracle.h5`: the known answer, utility = users @ items.T + bias, with user_ids, item_ids and attributes (the columns).

Each shopper likes one or two categories, one or two colours, and has a view on patterns; about {several:.0f}% have two
or three such tastes, which add up. An item's attributes are its category, the share of each colour, and its pattern;
its bias is popularity that no picture shows. A shopper buys {low} to {high} items, drawn without replacement from the
softmax of the utility. {never} items are never bought (nearly all of them new arrivals, not on sale yet); the top
tenth takes {top:.0f}% of the sales.

Expected AUC with one purchase of each shopper held out at random, over all items that the shopper did not buy: oracle
**{oracle:.4f}**, popularity {popularity:.4f}. The oracle knows the true tastes, so it is the ceiling.

Made by `tools/make_sample.py` (seed {seed}): the same photographs and library versions give the same bytes.
"""


class Item(NamedTuple):
    source: str
    category: str  # the source's label
    colour: str
    pattern: str
    shares: np.ndarray  # share of each of COLOURS among the garment's pixels


def to_lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0..255 (..., 3) -> CIE Lab under D65, where distances are closer to what the eye sees."""
    c = rgb / 255.0
    c = np.where(c > 0.04045, ((c + 0.055) / 1.055) ** 2.4, c / 12.92)
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = c @ to_xyz.T / to_xyz.sum(1)
    f = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = np.moveaxis(f, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], -1)


PROTOTYPES = to_lab(np.array([rgb for values in COLOURS.values() for rgb in values], float))
PROTOTYPE_COLOUR = np.repeat(np.arange(len(COLOURS)), [len(values) for values in COLOURS.values()])


def garment(lab: np.ndarray) -> tuple[np.ndarray, float]:
    """Mask of the garment (H, W) and how clear-cut it is: the colours of the middle against those of the rim."""
    height, width = lab.shape[:2]
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    prior = np.exp(-(x**2 + y**2) / 0.4)
    bins = np.round(ndimage.gaussian_filter(lab, (1, 1, 0)) / (8, 6, 6)).astype(int)
    bins -= bins.min((0, 1))
    code = np.ravel_multi_index(tuple(np.moveaxis(bins, -1, 0)), tuple(bins.max((0, 1)) + 1)).ravel()
    inside, weight = prior, np.sqrt(prior)
    for _ in range(4):  # each round re-estimates the two colour histograms from the mask of the round before
        front = np.bincount(code, inside.ravel()) / inside.sum()
        back = np.bincount(code, 1 - inside.ravel()) / (1 - inside).sum()
        ratio = ((front + 1e-4) / (front + back + 2e-4))[code].reshape(height, width)
        ratio = ndimage.gaussian_filter(ratio, 1.5)
        inside = ratio * weight / (ratio * weight + (1 - ratio) * (1 - weight) + 1e-9)
    parts, count = ndimage.label(ndimage.binary_opening(inside > 0.5, iterations=2))
    sizes = np.bincount(parts.ravel(), minlength=2)[1:]
    large = 1 + np.flatnonzero(sizes > 0.3 * sizes.max()) if count else np.zeros(0, int)
    return ndimage.binary_fill_holes(np.isin(parts, large)), float(np.abs(2 * inside - 1).mean())


def measure(photo: Image.Image, category: str) -> tuple[str, str, np.ndarray] | None:
    """Colour, pattern and colour shares of the garment; None where the photograph does not show them clearly."""
    photo.thumbnail((MEASURE_SIDE, MEASURE_SIDE))
    lab = to_lab(np.asarray(photo, float))
    mask, clarity = garment(lab)
    rim = np.concatenate([mask[0], mask[-1], mask[:, 0], mask[:, -1]]).mean()
    core = ndimage.binary_erosion(mask, iterations=5)  # without the outline, whose edges are not a pattern
    if clarity < 0.70 or not 0.1 < mask.mean() < 0.75 or rim > 0.25 or core.sum() < 400:
        return None

    pixels = ndimage.gaussian_filter(lab, (1, 1, 0))[core]
    distance = (((pixels[:, None] - PROTOTYPES) * (0.6, 1, 1)) ** 2).sum(-1)  # light and shade count for less
    shares = np.bincount(PROTOTYPE_COLOUR[distance.argmin(1)], minlength=len(COLOURS)) / core.sum()

    dy, dx = (ndimage.gaussian_filter(lab, 1.2, order, axes=(0, 1))[core] for order in ((1, 0), (0, 1)))
    yy, xx, xy = (dy**2).sum(1), (dx**2).sum(1), (dx * dy).sum(1)
    typical, strong = np.median(np.sqrt(xx + yy)), np.sqrt((xx + yy).mean())
    across, along = (xx - yy).sum() / (xx + yy).sum(), 2 * xy.sum() / (xx + yy).sum()  # structure tensor: direction
    if typical < 1.9 and strong < 4.5:
        pattern = "plain"
    elif category in ("Shoes", "Hat"):  # straps, brims and holes look like a pattern to this measure
        if typical > 2.6:
            return None
        pattern = "plain"
    elif typical > 2.4 and across < -0.5 and abs(along) < 0.45:  # edges all in one direction; folds run the other way
        pattern = "striped"
    elif typical > 3.5 and np.hypot(across, along) < 0.45:
        pattern = "patterned"
    else:
        return None  # in between: folds, a logo, a seam
    if pattern == "plain" and shares.max() < 0.5:
        return None
    colour = list(COLOURS)[shares.argmax()] if shares.max() >= 0.4 else "multicoloured"
    return colour, pattern, shares


def open_photo(source: Path, item_id: str) -> Image.Image:
    with Image.open(source / "images" / f"{item_id}.jpg") as photo:
        return ImageOps.exif_transpose(photo).convert("RGB")


def read_items(source: Path) -> list[Item]:
    """Every item for grown-ups of a known category whose photograph can be measured."""
    items = []
    with (source / "items.csv").open(newline="", encoding="utf-8") as file:
        for row in sorted(csv.DictReader(file), key=lambda row: row["item_id"]):
            if row["category"] not in CATEGORIES or row["kids"] != "False" or row["item_id"] in LEFT_OUT:
                continue
            if found := measure(open_photo(source, row["item_id"]), row["category"]):
                items.append(Item(row["item_id"], row["category"], *found))
    return items


def choose(items: list[Item], rng: np.random.Generator) -> list[Item]:
    """At most PER_CATEGORY of each category; rare looks first, or half of the sample would be black and grey."""
    chosen = []
    for category in CATEGORIES:
        group = [item for item in items if item.category == category]
        looks = [(item.colour, item.pattern) for item in group]
        weights = np.array([looks.count(look) ** -0.7 for look in looks])
        take = rng.choice(len(group), min(PER_CATEGORY, len(group)), replace=False, p=weights / weights.sum())
        chosen += [group[k] for k in sorted(take)]
    return chosen


def draw_tastes(rng: np.random.Generator) -> np.ndarray:
    """(users, attributes): each taste likes one or two categories, one or two colours, and has a view on patterns."""
    tastes = np.zeros((SHOPPERS, len(ATTRIBUTES)), np.float32)
    first_colour, first_pattern = len(CATEGORIES), len(CATEGORIES) + len(COLOURS)
    for taste in tastes:
        for _ in range(rng.choice(len(SHOPPER_TASTES), p=SHOPPER_TASTES) + 1):
            taste[rng.choice(len(CATEGORIES), rng.integers(1, 3), replace=False)] += CATEGORY_WEIGHT
            taste[first_colour + rng.choice(len(COLOURS), rng.integers(1, 3), replace=False)] += COLOUR_WEIGHT
            taste[first_pattern:] += rng.normal(0, PATTERN_WEIGHT, len(PATTERNS))
    return tastes


def exact_auc(scores: np.ndarray, bought: np.ndarray, drop: float = 0.0) -> float:
    """Leave-one-out AUC averaged over every choice of held-out item; a held-out item's own score falls by `drop`."""
    users = []
    for score, mine in zip(scores, bought, strict=True):
        other = np.sort(score[~mine])
        held = score[mine] - drop
        users.append((np.searchsorted(other, held) + np.searchsorted(other, held, "right")).mean() / 2 / len(other))
    return float(np.mean(users))


def write_csv(path: Path, header: str, rows: Sequence[tuple[object, ...]]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header.split(","))
        writer.writerows(rows)


def write_images(path: Path, source: Path, items: list[Item], item_ids: list[str]) -> None:
    """An uncompressed tar whose members carry no date and no owner, so the same input gives the same bytes."""
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for item, item_id in zip(items, item_ids, strict=True):
            photo = open_photo(source, item.source)
            photo.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
            buffer = io.BytesIO()
            photo.save(buffer, "JPEG", quality=QUALITY, optimize=True)
            member = tarfile.TarInfo(f"{item_id}.jpg")
            member.size = buffer.tell()
            buffer.seek(0)
            tar.addfile(member, buffer)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("source", type=Path, help="folder with items.csv and images/")
    parser.add_argument("out", type=Path, help="folder to write")
    args = parser.parse_args()
    rng = np.random.default_rng(SEED)
    items = choose(read_items(args.source), rng)
    slugs = [CATEGORIES[item.category][1] for item in items]
    item_ids = [f"{slug}-{slugs[:k].count(slug) + 1:03d}" for k, slug in enumerate(slugs)]
    user_ids = [f"shopper-{k + 1:03d}" for k in range(SHOPPERS)]

    # Simulate: softmax choice without replacement is the top n of utility + Gumbel noise.
    category = np.eye(len(CATEGORIES))[[list(CATEGORIES).index(item.category) for item in items]]
    pattern = np.eye(len(PATTERNS))[[PATTERNS.index(item.pattern) for item in items]]
    attributes = np.hstack([category, [item.shares for item in items], pattern]).astype(np.float32)
    tastes = draw_tastes(rng)
    bias = rng.normal(0, POPULARITY, len(items)).astype(np.float32)
    on_sale = np.ones(len(items), bool)
    on_sale[rng.choice(len(items), round(NEW_ARRIVALS * len(items)), replace=False)] = False
    utility = tastes @ attributes.T + bias
    noisy = np.where(on_sale, utility + rng.gumbel(size=utility.shape), -np.inf)
    bought = np.zeros(utility.shape, bool)
    events = []
    for user, row in enumerate(noisy):
        basket = rng.permutation(np.argsort(-row)[: rng.integers(PURCHASES[0], PURCHASES[1] + 1)])
        bought[user, basket] = True
        times = np.sort(rng.integers(START, START + DAYS * 86_400, len(basket)))
        events += [(user_ids[user], item_ids[i], int(time)) for i, time in zip(basket, times, strict=True)]

    counts = bought.sum(0)
    figures = {
        "photographs": len(items), "shoppers": SHOPPERS, "purchases": len(events), "never": (counts == 0).sum(),
        "low": PURCHASES[0], "high": PURCHASES[1], "several": 100 * sum(SHOPPER_TASTES[1:]), "days": DAYS,
        "top": 100 * np.sort(counts)[-(len(items) // 10) :].sum() / len(events), "seed": SEED, "side": SIDE,
        "oracle": exact_auc(utility, bought),
        "popularity": exact_auc(np.broadcast_to(counts, bought.shape), bought, drop=1),
    }  # fmt: skip
    args.out.mkdir(parents=True, exist_ok=True)
    write_images(args.out / "images.tar", args.source, items, item_ids)
    rows = []
    for item, item_id in zip(items, item_ids, strict=True):
        name = CATEGORIES[item.category][0]
        title = " ".join([item.colour, *([] if item.pattern == "plain" else [item.pattern]), name])
        rows.append((item_id, title[0].upper() + title[1:], name, item.colour, item.pattern, item.source))
    write_csv(args.out / "items.csv", "item_id,title,category,colour,pattern,source", rows)
    write_csv(args.out / "interactions.csv", "user_id,item_id,timestamp", events)
    with h5py.File(args.out / "oracle.h5", "w") as file:
        for name, values in (("users", tastes), ("items", attributes), ("bias", bias)):
            file.create_dataset(name, data=values)
        for name, ids in (("user_ids", user_ids), ("item_ids", item_ids), ("attributes", ATTRIBUTES)):
            text = [value.encode() for value in ids]
            kind = h5py.string_dtype("utf-8", max(map(len, text)))
            file.create_dataset(name, data=np.array(text, kind))
    (args.out / "README.md").write_text(README.format(**figures), encoding="utf-8")
    print(README.format(**figures))


if __name__ == "__main__":
    main()
