#!/bin/sh
# Hugging Face's image folder leaves out, without a word, every picture that its metadata.csv does not name.
#
# Guess:   metadata.csv adds columns to the pictures of a folder; a picture without a row has None there, and the label
#          that sub-folders give stays.
# Truth:   the table decides: pictures without a row are gone, no warning, no count; the label column is gone too; and
#          item ids are numbers, 0108775015 -> 108775015, so that they no longer join with the interactions. The same
#          table as metadata.jsonl with the id as text keeps the id, and drops pictures and labels all the same.
# Matters: a catalogue whose table lags behind its pictures trains on part of them, and its ids match nothing.
# Remedy:  count files against len(dataset); write ids as text in .jsonl or Parquet; labels as a column.
# Source:  https://huggingface.co/docs/datasets/image_dataset (metadata); the rest by measurement
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check datasets==5.2.0 pillow==13.0.0 numpy==2.4.6
cd "$dir"
export HF_HOME="$dir/hf" HF_HUB_OFFLINE=1 HF_DATASETS_DISABLE_PROGRESS_BARS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version
from pathlib import Path

for package in "datasets pillow".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import warnings

from datasets import load_dataset
from PIL import Image

NAMES = ("shirts/a.jpg", "shirts/b.jpg", "shoes/c.jpg", "shoes/d.jpg")


def folder(name, table="", text=""):
    for n, picture in enumerate(NAMES):
        path = Path(name) / picture
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (60 * n, 0, 0)).save(path)
    if table:
        (Path(name) / table).write_text(text)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        made = load_dataset("imagefolder", data_dir=name, split="train")
    words = [str(w.message) for w in said if issubclass(w.category, UserWarning)]
    print(f"{table or 'no table'}: {len(made)} of {len(NAMES)} pictures, columns {made.column_names}, "
          f"ids {made['item_id'][:] if 'item_id' in made.column_names else None}, warnings {words}")
    return made, words


plain, _ = folder("plain")
still(len(plain) == 4 and "label" in plain.column_names, "without a table all pictures come, with a label")
csv, said = folder("csv", "metadata.csv", "file_name,item_id\nshirts/a.jpg,0108775015\nshoes/c.jpg,0108775044\n")
still(len(csv) == 2 and not said, "with metadata.csv only those that it names come, without a warning")
still("label" not in csv.column_names, "and the label of the sub-folders is gone")
still(csv["item_id"][:] == [108775015, 108775044], "and ids lose their zeros")
rows = '{"file_name": "shirts/a.jpg", "item_id": "0108775015"}\n{"file_name": "shoes/c.jpg", "item_id": "0108775044"}\n'
lines, said = folder("lines", "metadata.jsonl", rows)
still(lines["item_id"][:] == ["0108775015", "0108775044"], "metadata.jsonl keeps the text of ids")
still(len(lines) == 2 and not said and "label" not in lines.column_names, "and leaves out pictures and labels as well")
PYTHON
