"""The contract of a model: what every entry of MODELS keeps, told of one on a small made catalogue.

    for finding in check_model("my_models.py:TwoLayer"): print(finding.state, finding.name, finding.words)

A model is fitted some seven times, with its own defaults, on 320 purchases.
"""

import dataclasses
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import scipy.sparse as sp

from ...base.arrays import Array
from ...base.errors import VbprError
from ...data.parts import MATRICES
from ...data.split import Split
from ...stores.model.factors import Factors
from ...training.config import TrainConfig
from ...training.configure import configure
from ...training.fit import fit
from ...training.item_features import ItemFeatures
from ...training.models import MODELS
from .board import Pictures, board, features_of
from .finding import Finding, judged

NUMBERS = ("users", "items", "bias")


class Trial:
    """A model and the checkerboard: fitted as it is, or with something changed."""

    def __init__(self, name: str) -> None:
        self.config = configure(name, widest=6, device="cpu")
        self.model, self.images = MODELS[name], Pictures()
        self.split = board(self.images.item_ids)
        self.features = features_of(self.split.item_ids)

    def fit(
        self, split: Split | None = None, features: ItemFeatures | None = None, config: TrainConfig | None = None
    ) -> Factors:
        given = (features or self.features) if self.model.visual else None
        return fit(split or self.split, given, config or self.config, images=self.images)  # type: ignore[arg-type]


def check_model(name: str) -> Iterator[Finding]:
    """Findings, as they are made; a fit that fails is the last.

    Raises:
        VbprError: there is no such model, or its attributes are wrong.
    """
    trial = Trial(name)
    yield Finding("the class can be built, and its attributes are those of a model", "ok", told(trial))
    started = time.monotonic()
    tests: tuple[Callable[[Trial, Factors], Finding | None], ...]
    tests = (removed, repeated, kept, unseeing, learned, ordered, strangers, unknown, placed)
    before = marks(trial)
    try:
        first = trial.fit()
        seconds = time.monotonic() - started
        yield untouched(trial, before)
        yield from filter(None, (test(trial, first) for test in tests))
    except VbprError as error:
        yield Finding("fit ends without an error", "fault", str(error))
        return
    yield Finding("fit ends without an error", "ok", f"{seconds:.1f} s for 320 purchases")


def told(trial: Trial) -> str:
    """What a model says of itself."""
    model = trial.model
    reads = "features" * model.visual + " and " * (model.visual and model.images) + "pictures" * model.images
    return (
        f"options: {', '.join(sorted(model.reads)) or 'none'}; tuned: {', '.join(model.space) or 'none'}; presets: "
        f"{', '.join(model.presets) or 'none'}; reads purchases{' and ' * bool(reads)}{reads}"
    )


def marks(trial: Trial) -> list[Array]:
    """Copies of all that fit is given."""
    split = trial.split
    matrices = [getattr(split, part) for part in MATRICES]
    arrays = [array for matrix in matrices for array in (matrix.indptr, matrix.indices, matrix.data)]
    return [array.copy() for array in (*arrays, np.asarray(trial.features.matrix), trial.features.mean)]


def removed(trial: Trial, first: Factors) -> Finding:
    shape = f"users {first.users.shape}, items {first.items.shape}, bias {first.bias.shape}"
    return Finding("fit returns finite float32 factors of every user and item of the split", "ok", shape)


def untouched(trial: Trial, before: list[Array]) -> Finding:
    same = all(np.array_equal(a, b) for a, b in zip(before, marks(trial), strict=True))
    return judged("fit changes nothing of what it is given", same, "it wrote into split or features; copy them first")


def repeated(trial: Trial, first: Factors) -> Finding:
    again = trial.fit()
    same = all(np.array_equal(getattr(first, part), getattr(again, part)) for part in NUMBERS)
    return judged(
        "the same seed gives the same factors",
        same,
        "two fits differ; draw from a generator with config.seed: torch.Generator().manual_seed(config.seed)",
    )


def kept(trial: Trial, first: Factors) -> Finding:
    with tempfile.TemporaryDirectory() as folder:
        first.save(Path(folder) / "model.h5")
        loaded = Factors.load(Path(folder) / "model.h5")
    users = np.arange(5)
    same = np.array_equal(loaded.scores(users), first.scores(users)) and loaded.about == first.about
    words = "the file has other numbers or another about; put only texts, numbers, lists and dicts into about"
    return judged("a saved model answers as it did", same, words)


def unseeing(trial: Trial, first: Factors) -> Finding:
    """With an item of the other colour held out of each user for test: does it rise?"""
    split = trial.split
    red = np.char.startswith(split.item_ids, "red")
    group = np.char.startswith(split.user_ids, "A")
    wrong = [np.flatnonzero((red != a) & (split.item_counts > 0))[u % 10] for u, a in enumerate(group)]
    test = sp.csr_matrix((np.ones(len(wrong)), (np.arange(len(wrong)), wrong)), shape=split.train.shape)
    other = trial.fit(dataclasses.replace(split, test=test))

    def place(factors: Factors) -> float:
        """The share of items that lie below those wrong ones."""
        scores = factors.scores(np.arange(len(wrong)))
        return float((scores < np.take_along_axis(scores, np.array(wrong)[:, None], 1)).mean())

    gained = place(other) - place(first)
    return judged(
        "fit does not learn from the test items",
        gained < LEAK,
        f"items held out for test rise by {gained:.2f} of the catalogue; learn from split.train alone",
    )


def learned(trial: Trial, first: Factors) -> Finding:
    auc = auc_of(trial.split, first)
    return judged(
        "it learns who likes which colour",
        auc > LEARNS,
        f"held-out items come before {auc:.2f} of those of the other colour, where 1.00 is right and .50 is chance; "
        "right for a baseline, else give it more epochs or a higher rate",
        "note",
    )


def auc_of(split: Split, factors: Factors) -> float:
    """How much of the other colour each user's test item comes before."""
    red, scores = np.char.startswith(split.item_ids, "red"), factors.scores(np.arange(len(split.user_ids)))
    wins = []
    for user, name in enumerate(split.user_ids):
        others = (red != name.startswith("A")) & (split.item_counts > 0)
        mine = scores[user, split.test[user].indices[0]]
        wins.append(np.mean((mine > scores[user, others]) + 0.5 * (mine == scores[user, others])))
    return float(np.mean(wins))


def ordered(trial: Trial, first: Factors) -> Finding | None:
    """The catalogue in another order, and the features as well."""
    if trial.model.images:
        return None  # whose pictures are looked up by id
    split, order = trial.split, np.random.default_rng(3).permutation(len(trial.split.item_ids))
    parts = {part: getattr(split, part)[:, order].tocsr().sorted_indices() for part in MATRICES}
    moved = dataclasses.replace(split, item_ids=split.item_ids[order], **parts)
    lost = auc_of(split, first) - auc_of(moved, trial.fit(moved, features_of(moved.item_ids)))
    return judged(
        "the order of the items does not matter",
        lost < LOST,
        f"with the items in another order it is worse by {lost:.2f}; row i of features belongs to split.item_ids[i]",
    )


def strangers(trial: Trial, first: Factors) -> Finding:
    """As a split by time leaves them."""
    split = trial.split
    train = split.train.tolil()
    train[0] = 0
    trial.fit(dataclasses.replace(split, train=train.tocsr()))
    return Finding("a user may be without train interactions", "ok")


def unknown(trial: Trial, first: Factors) -> Finding | None:
    if not trial.model.visual:
        return None
    known = np.arange(len(trial.split.item_ids)) % 7 > 0
    features = features_of(trial.split.item_ids, known)
    lost = auc_of(trial.split, first) - auc_of(trial.split, trial.fit(features=features))
    return judged(
        "rows of items without features are not read",
        lost < UNKNOWN,
        f"three items of 22 without features make it worse by {lost:.2f}; use features.standardised(rows), in which "
        "they have the mean, or leave rows out where features.known is False",
    )


def placed(trial: Trial, first: Factors) -> Finding | None:
    """Of the items that nobody took, by what they look like."""
    if not trial.model.visual:
        return None
    name = "new items are placed by their features"
    if first.head is None:
        words = "it has no head: add-items and photos will be refused; where an item's vector is linear in its features"
        return Finding(name, "note", f"{words}, give factors_of a vbpr.Head")
    new = trial.split.item_counts == 0
    vectors, bias = first.head(np.asarray(trial.features.matrix)[new])
    scores = first.users @ vectors.T + bias
    same = np.allclose(scores, first.scores(np.arange(len(first.users)))[:, new], atol=1e-3 * np.abs(scores).max())
    words = "the head gives items that nobody took other scores than the factors have; make both of the same weights"
    return judged(name, bool(same), words)


LEARNS, LEAK, LOST, UNKNOWN = 0.9, 0.2, 0.15, 0.25

__all__ = ["check_model"]
