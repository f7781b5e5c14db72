"""Polyvore's outfits: an outfit is a user, its clothes are what it took, and the file's own split is kept.

convert_polyvore(Path("polyvore_outfits"), Path("data/polyvore"))    # nondisjoint/train.json and metadata
convert_polyvore(Path("polyvore"), Path("data/maryland"))    # train_no_dup.json, items by their number in an outfit
"""

import json
from pathlib import Path
from typing import Any

from ...base.errors import VbprError, first_line
from .canonical import Conversion, begin, finish, finished, write_table

FOLDERS = ("nondisjoint", "disjoint", ".", "label", "labels")
PARTS = {"train": "train", "valid": "validation", "test": "test"}
ENDS = ("_no_dup.json", ".json")


def parts_of(source: Path) -> dict[str, Path]:
    """The files of train, validation and test; none where train or test is missing."""
    for folder in FOLDERS:
        for end in ENDS:
            files = {part: source / folder / f"{part}{end}" for part in PARTS}
            if files["train"].is_file() and files["test"].is_file():
                return {part: file for part, file in files.items() if file.is_file()}
    return {}


def convert_polyvore(source: Path, out: Path) -> Conversion:
    """Write interactions.csv with the split, and items.csv.

    Raises:
        VbprError: a file is no JSON, or no list of outfits with their items.
    """
    done = finished(out, source)
    if done is not None:
        return done
    columns: dict[str, list[str]] = {"user_id": [], "item_id": [], "split": []}
    items: dict[str, dict[str, str]] = {}
    metadata, categories = read(source / "polyvore_item_metadata.json") or {}, categories_of(source)
    files = parts_of(source)
    for part, file in files.items():
        for number, outfit in enumerate(read(file) or []):
            listed = outfit.get("items") if isinstance(outfit, dict) else None
            if not isinstance(listed, list) or "set_id" not in outfit:
                raise VbprError(f"{file}: outfit {number + 1:,} has no set_id and items; this is no file of Polyvore's")
            for item in listed:
                name, picture = named(str(outfit["set_id"]), item)
                columns["user_id"].append(str(outfit["set_id"]))
                columns["item_id"].append(name)
                columns["split"].append(PARTS[part])
                items[name] = described({**metadata.get(name, {}), **item}, categories) | {"image": picture}
    if not items:
        raise VbprError(f"{source} holds no outfits")
    begin(out, source)
    write_table(out / "interactions.csv", columns)
    fields = ("title", "category", "image")
    write_table(out / "items.csv", {"item_id": list(items), **{f: [i[f] for i in items.values()] for f in fields}})
    counts = {"users": len(set(columns["user_id"])), "items": len(items), "interactions": len(columns["item_id"])}
    note = f"users are outfits; the pictures stay where they are: link {source / 'images'} into {out} as images"
    return finish(out, source, counts, [note])


def named(outfit: str, item: dict[str, Any]) -> tuple[str, str]:
    """An item's id and its picture: its own, or its number within the outfit where it has none."""
    if "item_id" in item:
        return str(item["item_id"]), f"{item['item_id']}.jpg"
    return f"{outfit}_{item.get('index')}", f"{outfit}/{item.get('index')}.jpg"


def described(item: dict[str, Any], categories: dict[str, str]) -> dict[str, str]:
    title = item.get("title") or item.get("url_name") or item.get("name") or ""
    number = str(item.get("category_id", item.get("categoryid", "")))
    return {"title": str(title), "category": str(item.get("semantic_category") or categories.get(number, number))}


def categories_of(source: Path) -> dict[str, str]:
    """Number -> name, of categories.csv (`2,dress,all-body`) or category_id.txt (`2 Clothing`)."""
    for name, sign in (("categories.csv", ","), ("category_id.txt", " ")):
        if (source / name).is_file():
            lines = (source / name).read_text(encoding="utf-8", errors="replace").splitlines()
            return {fields[0]: fields[1] for line in lines if len(fields := line.split(sign, 2 - (sign == " "))) > 1}
    return {}


def read(file: Path) -> Any:
    """A file of JSON; None where there is none."""
    if not file.is_file():
        return None
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise VbprError(f"{file} is no JSON ({first_line(error)}); fetch it again") from error


__all__ = ["convert_polyvore", "parts_of"]
