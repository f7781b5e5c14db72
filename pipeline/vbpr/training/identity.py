"""A digest of all that decides a model: what a checkpoint or a finished cell must agree with."""

import hashlib
import json

from ..base.arrays import update_with_ids
from ..data.images.source import ImageSource
from ..data.split import Split
from .config import TrainConfig


def pictures_in(images: ImageSource | None) -> list[str]:
    """What tells whether images have changed, for `identity_of`."""
    return [] if images is None else [repr([images.signature(i) for i in range(len(images))])]


def identity_of(split: Split, digests: list[str], config: TrainConfig, tested: bool = False) -> str:
    """A digest of what decides the model, and, if `tested`, of the test items: its figures hang on them, and the epoch
    that is chosen may, for they are no candidates in validation."""
    total = hashlib.blake2b(json.dumps([digests, config.to_json(), split.rule]).encode(), digest_size=16)
    for ids in (split.user_ids, split.item_ids):
        update_with_ids(total, ids)
    for part in (split.train, split.validation, *([split.test] if tested else [])):
        total.update(part.indptr.tobytes())
        total.update(part.indices.tobytes())
    return total.hexdigest()


__all__ = ["identity_of", "pictures_in"]
