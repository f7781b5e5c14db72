"""Tradesy's own file (He & McAuley, 2016): `tradesy.json.gz`, a line a user: what each bought and wanted.

convert_tradesy(Path("tradesy.json.gz"), Path("data/tradesy"))     # pictures come with TradesyImgPartitioned.npy only
"""

from pathlib import Path

from ...base.errors import VbprError
from .amazon_reviews import ID, field, lines
from .canonical import Conversion, begin, finish, finished, write_table

POSITIVE = ("bought", "want")  # purchases and thumbs-up, as VBPR counts them


def convert_tradesy(source: Path, out: Path) -> Conversion:
    """Write interactions.csv: what each user bought or wanted, a pair once."""
    done = finished(out, source)
    if done is not None:
        return done
    pairs: dict[tuple[str, str], None] = {}
    for number, record in lines(source):
        user, lists = field(source, number, record, "uid"), record.get("lists")
        if not isinstance(lists, dict) or not all(isinstance(lists.get(name, []), list) for name in POSITIVE):
            raise VbprError(f"{source}, line {number:,} has no lists of items; this is not Tradesy's file")
        taken = [item for name in POSITIVE for item in lists.get(name, [])]
        for item in taken:
            if type(item) not in (str, int) or not ID.fullmatch(str(item)):
                raise VbprError(
                    f"{source}, line {number:,}: {str(item)[:100]!r} is no item id; mend or remove the line"
                )
        pairs.update(((user, str(item)), None) for item in taken)
    if not pairs:
        raise VbprError(f"{source} holds no purchases")
    begin(out, source)
    users, items = zip(*pairs, strict=True)
    write_table(out / "interactions.csv", {"user_id": users, "item_id": items})
    counts = {"users": len(set(users)), "items": len(set(items)), "interactions": len(pairs)}
    return finish(out, source, counts, ["this file holds no pictures: put them into images/, named by item id"])


__all__ = ["convert_tradesy"]
