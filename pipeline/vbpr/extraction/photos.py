"""Photos that are asked about, through the very backbones that a file of features or a model records."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.files import read_bytes
from ..data.images.source import MAX_BYTES, BadImage, Pixels
from ..networks.prepare import prepare
from ..stores.model.factors import BLIND


class PhotoEncoder:
    """The very backbones (name, weights, preprocessing) that a file records, loaded once: photos -> features.

    Several feature files give several backbones, whose features are put side by side as they were in training.
    """

    def __init__(
        self,
        recorded: list[dict[str, Any]],
        weights: Path | str | None = None,
        device: str = "cpu",
        batch: int = 1,
        engine: str = "torch",
    ) -> None:
        """
        Args:
            weights: a file instead of the recorded one, when that has moved; its tensors must be the same.
            engine: torch starts at once; auto may compile for seconds, which only many images pay back.

        Raises:
            VbprError: nothing recorded, or its weights are gone or not those any more.
        """
        from ..networks.registry import load_backbone
        from .engines import Encoder

        if not recorded:
            raise VbprError(BLIND)
        lost = [made for made in recorded if (f := made.get("weights_file")) is not None and not Path(f).exists()]
        moved = recorded if len(recorded) == 1 else lost  # whose weights are given now
        if weights is not None and len(moved) != 1:
            named = " and ".join(made["backbone"] for made in moved or recorded)
            raise VbprError(f"--weights FILE takes the place of one file that has moved; here it might be of {named}")
        self.parts = []
        for made in recorded:
            file = weights if weights is not None and made is moved[0] else made.get("weights_file")
            if file is not None and not Path(file).exists():
                raise VbprError(
                    f"a photo must go through {made['backbone']} with the weights in {file}, which is not there; give "
                    "that file with --weights"
                )
            backbone = load_backbone(made["backbone"], file, file is None and made["weights"] == "random")
            same = (
                backbone.digest == made.get("weights_digest") and str(backbone.preprocessing) == made["preprocessing"]
            )
            if not same:
                raise VbprError(
                    f"the photo would go through {backbone.name} ({backbone.weights}), but the features came from "
                    f"{made['backbone']} ({made['weights']}); give those weights with --weights"
                )
            self.parts.append(
                (backbone.preprocessing, Encoder(backbone, device, made.get("precision", "exact"), engine, batch))
            )

    def prepare(self, photo: bytes) -> list[Pixels]:
        """One encoded image as each backbone wants it.

        Raises:
            BadImage: it cannot be used.
        """
        return [prepare(photo, how) for how, _ in self.parts]

    def encode(self, prepared: Sequence[list[Pixels]]) -> Array:
        """n prepared images -> (n, D) float32."""
        columns = [encoder(np.stack([p[n] for p in prepared])) for n, (_, encoder) in enumerate(self.parts)]
        return np.concatenate(columns, 1)

    def __call__(self, photos: Sequence[bytes]) -> Array:
        """n encoded images -> (n, D) float32; see `prepare`."""
        return self.encode([self.prepare(photo) for photo in photos])


def encode_photo(path: Path | str, backbones: list[dict[str, Any]], weights: Path | str | None = None) -> Array:
    """(1, D) features of a photo file; see `PhotoEncoder`."""
    return encode_photos([path], backbones, weights)


def encode_photos(
    paths: Sequence[Path | str], backbones: list[dict[str, Any]], weights: Path | str | None = None
) -> Array:
    """(n, D) features of photo files; see `PhotoEncoder`.

    Raises:
        VbprError: a file cannot be read or used.
    """
    photos, rows = [], []
    for path in paths:
        try:
            photos.append(read_bytes(path, MAX_BYTES))
        except OSError as error:
            raise VbprError(f"{path} cannot be read ({error.strerror}); give --image a photo") from error
    encoder = PhotoEncoder(backbones, weights)
    for path, photo in zip(paths, photos, strict=True):
        try:
            rows.append(encoder([photo]))
        except BadImage as error:
            raise VbprError(f"{path} cannot be used: {error}; give --image a photo") from error
    return np.concatenate(rows)


__all__ = ["PhotoEncoder", "encode_photo", "encode_photos"]
