"""A digest of all that decides a model: what a checkpoint or a finished cell must agree with."""

import hashlib
import json

from ..base.arrays import update_with_ids
from ..data.images.source import ImageSource
from ..data.split import Split
from .config import TrainConfig
from .models import MODELS


def pictures_in(images: ImageSource | None) -> list[str]:
    """The signatures of all images, in one text for `identity_of`; nothing where there are no images."""
    return [] if images is None else [repr([images.signature(i) for i in range(len(images))])]


def identity_of(split: Split, digests: list[str], config: TrainConfig, tested: bool = False) -> str:
    """32 hexadecimal digits that change with anything that decides the model.

    Args:
        digests: of feature files, images and whatever else decides it.
        tested: whether the test items count, too: figures depend on them, and so may the epoch that validation
            chooses, because they are no candidates there.
    """
    own = MODELS[config.model].own
    digests = [*digests, *([] if own is None else [own.digest])]
    total = hashlib.blake2b(json.dumps([digests, config.to_json(), split.rule]).encode(), digest_size=16)
    for ids in (split.user_ids, split.item_ids):
        update_with_ids(total, ids)
    for part in (split.train, split.validation, *([split.test] if tested else [])):
        total.update(part.indptr.tobytes())
        total.update(part.indices.tobytes())
    return total.hexdigest()


__all__ = ["identity_of", "pictures_in"]
