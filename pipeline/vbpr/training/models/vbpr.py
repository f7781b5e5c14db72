"""VBPR (He & McAuley, 2016): a learned view of image features, and latent factors for what images do not show.

    score(u, i) = theta_u . E f_i + beta . f_i + gamma_u . (s_i gamma_i) + s_i b_i

Trained together, the latent part explains the purchases first and the head is left with little to learn, so that cold
items suffer. By default each part is therefore trained by BPR on its own, and the two are added in units of their
standard deviation over the catalogue, user by user: still two matrices and a bias. `joint` trains them together.
"""

from pathlib import Path
from typing import Any

from ...data.images.source import ImageSource
from ...data.split import Split
from ...stores.model.factors import Factors
from ..config import TrainConfig, fields_of
from ..item_features import ItemFeatures
from .blend import blend, fit_part, unless_diverged
from .bpr.bpr import BPR
from .bprmf import DEFAULTS as BPRMF
from .entry import Model, Space
from .visual import READS as VISUAL_READS
from .visual import SPACE as VISUAL_SPACE


class VBPR:
    """Visual and latent factors; `dim` or `factors` of 0 leaves the other part alone.

    Trained apart, rate, batch, shrinkage and penalties are the visual part's; the latent part has its own (LATENT), and
    LATENT_EPOCHS for each of the visual part's.
    """

    def __init__(self, config: TrainConfig, checkpoint: Path | None = None) -> None:
        self.config, self.checkpoint = config, checkpoint

    def fit(self, split: Split, features: ItemFeatures | None, images: ImageSource | None = None) -> Factors:
        """See `Recommender.fit`.

        Raises:
            Diverged: a part did; the model is made of its best epoch and of the others.
        """
        c = self.config
        if c.joint or not c.factors:
            return BPR(c, self.checkpoint).fit(split, features)
        parts = parts_of(c)
        if not c.dim:
            return BPR(parts["latent"], self.checkpoint).fit(split, None)
        failures: list[str] = []
        looks = fit_part(parts["visual"], self.checkpoint, "visual", split, features, failures)
        rest = fit_part(parts["latent"], self.checkpoint, "latent", split, None, failures)
        return unless_diverged(blend([(1.0, looks), (c.latent_weight, rest)], ["visual", "latent"]), failures)


def parts_of(c: TrainConfig) -> dict[str, TrainConfig]:
    """The configurations of what is trained, by name: one, or two that are trained one after the other."""
    if c.joint or not c.factors:
        return {"joint": c}
    latent = c.changed(**LATENT, epochs=LATENT_EPOCHS * c.epochs, seed=(c.seed + 1) % 2**31)
    looks = {"visual": c.changed(factors=0, item_bias=False)} if c.dim else {}
    return {**looks, "latent": latent}


# Of the latent part: as bprmf has it, with the configuration's size and a quarter of its negatives popular.
LATENT: dict[str, Any] = {
    **{name: value for name, value in BPRMF.items() if name not in ("factors", "item_bias", "negatives", "epochs")},
    "popularity_share": 0.25,
}
LATENT_EPOCHS = 4

SPACE: Space = {
    **VISUAL_SPACE,
    "factors": (16, 256, "log"),
    "shrink": (0.0, 20.0),
    "latent_weight": (0.1, 1.0),
}
# As He & McAuley (2016) have it: one model, own uniform negatives, features as they are; sizes and rates are those that
# Cornac has for it.
PUBLISHED: dict[str, Any] = {
    "joint": True,
    "dim": 10,
    "factors": 10,
    "history": False,
    "unit": False,
    "whiten": 0.0,
    "axes": 0,
    "shrink": 0.0,
    "shared_negatives": 0,
    "negatives": "uniform",
    "per_user": 1,
    "batch": 128,
    "lr": 5e-3,
    "epochs": 20,
    "schedule": "constant",
}
MODEL = Model(
    VBPR,
    {"factors": 64, "item_bias": True, "popularity_share": 0.4},
    VISUAL_READS | fields_of("blend"),
    SPACE,
    {"published": PUBLISHED},
    visual=True,
)

__all__ = ["MODEL", "VBPR", "parts_of"]
