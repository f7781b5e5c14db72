"""The model to take: rankers of different kinds, blended by weights that validation items chose; see `chooser`.

Closed forms that are exact of items that sell (EASE, and CEASE, which knows features), feature-aware ALS of two
penalties, BPR against any items and against popular ones, a linear filter; and for items that hardly sell or never
did, the visual ranker and a graph of looks. With too few validation items the weights are PRIOR. Without any, as of a
model for use, an item of each user is held out, the weights are chosen by these, and the parts fitted again with them.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Set
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp

from ...base.arrays import Array
from ...base.errors import VbprError
from ...base.progress import console
from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig, fields_of
from ..item_features import ItemFeatures
from ..model import Diverged
from .axes import axes
from .blend import fit_part, unless_diverged
from .bprmf import DEFAULTS as BPRMF
from .cease import cease
from .chooser import FEWEST, Choice, choose
from .entry import Model, Space
from .feature_als import feature_als_part
from .filter import GRAPH_ITEMS, linear_filter, looks_graph
from .implicit import BPR_DEFAULTS, Implicit
from .kept import kept
from .parts import Part, Scores, add_up
from .visual import SPACE as VISUAL_SPACE

PRIOR = {  # of warm and cold items
    "cease": (0.7, 0.7),
    "ease": (0.7, 0.6),
    "visual": (0.2, 0.3),
    "als 0.7": (0.05, 0.05),
    "als 0.35": (0.4, 0.35),
    "latent": (0.25, 0.65),
    "bpr": (0.2, 0.3),
    "graph": (0.05, 0.1),
    "filter": (0.1, 0.1),
}
ALPHA, LEVELS = 40.0, (0.7, 0.35)  # of `feature_als`
# Purchases that a part may look at in all its epochs, so that it takes minutes of data however large
POSITIVES, BPR_STEPS, ALS_STEPS = 1e7, 1e8, 2e7
LATENT_EPOCHS, BPR_EPOCHS, ALS_EPOCHS = 20, 200, 10
MANY = 1_000_000  # purchases, of which one `feature_als` is enough
HELD_OUT = 5000  # items that are held out to choose by where there are no validation items, at most


class Hybrid:
    """The blend. `dim` of 0 leaves out the parts that need features, `factors` of 0 the others; both are parts' sizes.
    The configuration's epochs, rates and penalties are the visual part's, whose training a killed run goes on with."""

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.config, self.checkpoint = config, checkpoint

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            Diverged: the visual part did; the model is made of its best epoch and of the others.
        """
        failures: list[str] = []
        apart = split if split.validation.nnz else hold_out(split, self.config.seed)
        again = apart is not split and apart.validation.nnz >= FEWEST
        if again:
            console.print(f"hybrid: {apart.validation.nnz:,} items held out to choose by, then learnt from as well")
        parts = self.parts(apart if again else split, features, failures, "choice-" if again else "")
        scores = Scores(list(parts.values()), *split.train.shape)
        prior = np.array([PRIOR[name] for name in parts])
        choice = choose(apart, scores, prior, self.config.objective, self.config.seed)
        if again:
            names, used = list(parts), np.flatnonzero(choice.weights.warm + choice.weights.cold).tolist()
            failures.clear()
            parts = self.parts(split, features, failures, only={names[p] for p in used})
            choice = choice.of([names.index(name) for name in parts])
            scores = Scores(list(parts.values()), *split.train.shape)
        factors = add_up(split, scores, choice.weights, features, self.config.seed)
        factors.about.update(told(list(parts), choice, self.config.objective, apart, again))
        return unless_diverged(factors, failures)

    def parts(
        self,
        split: Split,
        features: ItemFeatures | None,
        failures: list[str],
        stage: str = "",
        only: Set[str] = PRIOR.keys(),
    ) -> dict[str, Part]:
        """What is blended, by the names of PRIOR.

        What BPR trains, and can be stopped, runs here; all else meanwhile, side by side.

        Args:
            failures: see `fit_part`. stage: of the checkpoints' names. only: names of parts that are wanted.
        """
        c = self.config
        looks = axes(features if c.dim else None, len(split.item_ids))
        parts: dict[str, Part] = {}
        others: dict[str, Future[Part]] = {}
        with ThreadPoolExecutor(thread_name_prefix="part") as pool:

            def begin(makers: Iterator[tuple[str, Callable[[], Part]]]) -> None:
                for name, make in makers:
                    if name in only:
                        others[name] = pool.submit(kept, make, self.checkpoint, stage + name, c.identity)

            try:
                if c.factors:
                    begin(self.of_purchases(split, *looks))
                if (c.dim and only & LOOKING) or not c.factors:  # with neither, it says what is wrong
                    visual = c.changed(factors=0, item_bias=False, unit=True, epochs=passes(split, c.epochs))
                    parts |= self.trained("visual", stage, visual, split, features, failures)
                    begin(self.of_looks(split, parts.get("visual"), *looks))
                if c.factors and "latent" in only:
                    latent = c.changed(**BPRMF | {"factors": c.factors}, seed=(c.seed + 1) % 2**31)
                    latent = latent.changed(epochs=passes(split, LATENT_EPOCHS))
                    parts |= self.trained("latent", stage, latent, split, None, failures)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise
            parts |= finished(others)
        if not parts:
            raise Diverged(failures[0] if failures else "every part of hybrid failed", None)
        return {name: parts[name] for name in PRIOR if name in parts and name in only}

    def trained(
        self,
        name: str,
        stage: str,
        config: TrainConfig,
        split: Split,
        features: ItemFeatures | None,
        failures: list[str],
    ) -> dict[str, Part]:
        """A part that BPR trains, with a checkpoint and a learning curve that says whose it is; none if it diverged at
        once."""
        try:
            made = Part.of(fit_part(config, self.checkpoint, stage + name, split, features, failures))
        except Diverged as error:
            failures.append(str(error))
            return {}
        return {name: dataclasses.replace(made, curve=[{**point, "part": name} for point in made.curve])}

    def of_purchases(self, split: Split, looks: Array, turn: Array) -> Iterator[tuple[str, Callable[[], Part]]]:
        """Parts that need nothing trained, and how they are made; those that take long first."""
        c, count = self.config, max(1, split.train.nnz)
        bpr = c.changed(
            model="bpr", **BPR_DEFAULTS | {"factors": c.factors, "epochs": passes(split, BPR_EPOCHS, BPR_STEPS)}
        )
        yield "bpr", lambda: Part.of(Implicit(bpr).fit(split, None))
        yield "ease", lambda: cease(split, looks[:, :0], turn[:0], seed=c.seed)
        epochs = passes(split, ALS_EPOCHS, ALS_STEPS, 4)
        for level in LEVELS[-1:] if count > MANY else LEVELS:
            make = functools.partial(feature_als_part, split, looks, turn, c.factors, ALPHA, level, c.seed, epochs)
            yield f"als {level:g}", make
        yield "filter", lambda: linear_filter(split, c.seed)

    def of_looks(
        self, split: Split, visual: Part | None, looks: Array, turn: Array
    ) -> Iterator[tuple[str, Callable[[], Part]]]:
        """Parts that ask which items look alike to those who buy them: by the directions of the visual part's vectors,
        which of a new item are linear in its features but for their length; without that part, by the features."""
        seed = self.config.seed
        if visual is not None and visual.unseen is not None:
            vectors = visual.terms[0][1]
            length = np.linalg.norm(vectors, axis=1)
            looks = vectors / np.maximum(length, 1e-12)[:, None]
            turn = visual.unseen[1][:-1] / np.float32(max(1e-12, length.mean()))
        yield "cease", lambda: cease(split, looks, turn, seed=seed)
        if len(looks) <= GRAPH_ITEMS:
            yield "graph", lambda: looks_graph(split, looks, seed)


def passes(split: Split, wanted: int, steps: float = POSITIVES, least: int = 1) -> int:
    """Epochs of a part: as many as are wanted, fewer of data so large that they would take more than `steps`."""
    return int(np.clip(steps / max(1, split.train.nnz), min(least, wanted), wanted))


def finished(others: dict[str, "Future[Part]"]) -> dict[str, Part]:
    """The parts that came out; a line on each that failed."""
    parts = {}
    for name, other in others.items():
        try:
            parts[name] = other.result()
        except (VbprError, RuntimeError, ValueError, MemoryError) as error:
            console.print(f"hybrid: its part {name} is left out, for it failed ({error or type(error).__name__})")
    return parts


LOOKING = {"visual", "cease", "graph"}  # what the visual part is trained for


def hold_out(split: Split, seed: int) -> Split:
    """The split with one train item at random of each user who has LEAST, of HELD_OUT users at most, for validation."""
    rng, x = np.random.default_rng(seed), split.train.tocsr()
    size = np.diff(x.indptr)
    users = np.sort(rng.permutation(np.flatnonzero(size >= LEAST))[:HELD_OUT])
    places = x.indptr[users] + (rng.random(len(users)) * size[users]).astype(np.int64)
    out = np.zeros(x.nnz, bool)
    out[places] = True
    row, ones = np.repeat(np.arange(x.shape[0]), size), x.data
    train, held = (sp.csr_matrix((ones[some], (row[some], x.indices[some])), x.shape) for some in (~out, out))
    return dataclasses.replace(split, train=train, validation=held)


def told(names: list[str], choice: Choice, objective: str, apart: Split, again: bool) -> dict[str, Any]:
    """What is on record of the choice and of the parts; a line where there was too little to choose by."""
    count, w = apart.validation.nnz, choice.weights
    if choice.blend:
        by = f"{count:,} {'items held out, then learnt from' if again else 'validation items'}"
    else:
        by = f"nothing: {count:,} validation items are under {FEWEST}, the weights are constants"
        console.print(f"hybrid: {count:,} validation items are too few to choose by (under {FEWEST}): constant weights")
    rounded = [{key: round(value, 4) for key, value in part.items()} for part in choice.parts or [{}] * len(names)]
    parts = [
        {"part": name, "warm": round(float(warm), 3), "cold": round(float(cold), 3)} | more
        for name, warm, cold, more in zip(names, w.warm, w.cold, rounded, strict=True)
    ]
    blend = {key: round(value, 4) for key, value in choice.blend.items()}
    return {"choice": {"objective": objective, "by": by} | blend, "blend": parts}


LEAST = 3  # items of a user of whom one is held out
SPACE: Space = {**VISUAL_SPACE, "factors": (16, 128, "log")}
MODEL = Model(
    Hybrid,
    {"factors": 64, "popularity_share": 1.0},
    fields_of("steps", "shared", "head", "features", "history", "latent", "choice") - {"unit"},
    SPACE,
    visual=True,
)

__all__ = ["MODEL", "Hybrid"]
