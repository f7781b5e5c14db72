"""What is trained on: interactions split over a catalogue, and the features of its items."""

import contextlib
import functools
from collections.abc import Sequence

import numpy as np

from ..base.arrays import Strings
from ..base.errors import VbprError
from ..data.dataset import Dataset
from ..data.images.source import ImageSource
from ..data.same_ids import note_suffixes, refuse_other_names, refuse_two_ways, written_in_two_ways
from ..data.split import Split, SplitConfig
from ..stores.features.layout import ELSEWHERE
from ..stores.features.store import FeatureStore
from .item_features import Aligned, ItemFeatures


def align(stores: Sequence[FeatureStore], item_ids: Strings) -> ItemFeatures:
    """The features of a catalogue by id, several files side by side; an item that one of them lacks has the mean there,
    and one that all of them lack is unknown."""
    places = [store.find(item_ids) for store in stores]
    known = np.logical_or.reduce([place >= 0 for place in places])
    if len(stores) == 1 and np.array_equal(places[0], np.arange(len(stores[0]))):
        return ItemFeatures.of(stores[0].features, known)  # the catalogue is the file
    files = [(store.features, place) for store, place in zip(stores, places, strict=True)]
    return ItemFeatures.of(Aligned(files), known)


def prepare(
    data: Dataset,
    stores: Sequence[FeatureStore],
    *,
    config: SplitConfig = SplitConfig(),
    images: ImageSource | None = None,
) -> Split:
    """Read the interactions and split them, over a catalogue of every item that has features (or, where there are none,
    an image) or interactions.

    Raises:
        VbprError: the features are of another data set, or lack items that have an image; or see
            `refuse_other_names`.
    """
    interactions = data.interactions()
    item_ids = (interactions.k_core(config.k_core) if config.k_core else interactions).item_ids
    if images is None and not stores and data.holds_images():
        images = data.images()  # whoever has images ranks all of them, with features or without
    if images is not None and not stores:
        refuse_other_names(item_ids, images.item_ids, images.name)
        note_suffixes(item_ids, images.item_ids, str(data.path))
    usable = [] if images is None else [images.item_ids]
    usable += [store.finished().item_ids[store.done] for store in stores]
    if stores:
        absent = absent_from(stores, item_ids, data.name)
        elsewhere = all(store.provenance["weights"] == ELSEWHERE for store in stores)  # no image makes such features
        if len(absent) and not elsewhere:  # else there is no need to list a million of them
            with contextlib.suppress(VbprError):  # who has no images cannot encode more of them
                images = data.images()
        pictured = absent[:0] if images is None else np.intersect1d(absent, images.item_ids)
        if images is not None and len(pictured):
            new = functools.reduce(np.setdiff1d, [store.item_ids for store in stores], images.item_ids)
            raise VbprError(
                f"{named(stores)} lack{'s' * (len(stores) == 1)} {len(new):,} of {len(images):,} images (first: "
                f"{new[0]}), of which {len(pictured):,} are of items in the interactions; run vbpr extract again to "
                "add them"
            )
    return Split.make(interactions, config, catalogue=functools.reduce(np.union1d, usable) if usable else None)


def named(stores: Sequence[FeatureStore]) -> str:
    return " and ".join(str(store.path) for store in stores)


def absent_from(stores: Sequence[FeatureStore], item_ids: Strings, name: str) -> Strings:
    """The items of a data set, called `name`, that none of the feature files has.

    Raises:
        VbprError: too many of them, so that the files must be of another data set, or have other names for its items:
            more than half, or, if one was made from the data set of that name, more than nine in ten; or see
            `refuse_two_ways`.
    """
    have = functools.reduce(np.union1d, [store.item_ids for store in stores])
    absent = np.setdiff1d(item_ids, have)
    sources = list(dict.fromkeys(store.provenance["data"] for store in stores))
    if len(absent) > len(item_ids) * (0.9 if name in sources else 0.5):
        here, there = next(iter(written_in_two_ways(item_ids, have)), (absent[0], have[0]))
        mend = (
            f"write both ids alike (here {here}, there {there}), or if they are of other things, extract that data "
            "set's images, or give its --data"
        )
        raise VbprError(
            f"{named(stores)}, made from {' and '.join(sources)}: features for only {len(item_ids) - len(absent):,} of "
            f"the {len(item_ids):,} items in {name}; {mend}"
        )
    strange = [store for store in stores if not np.isin(store.item_ids, item_ids).any()]
    if strange:
        raise VbprError(f"{named(strange)}: features of none of the {len(item_ids):,} items in {name}; leave it out")
    refuse_two_ways(item_ids, have, named(stores))
    note_suffixes(item_ids, have, name)
    return absent


__all__ = ["absent_from", "align", "prepare"]
