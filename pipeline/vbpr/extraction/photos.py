"""Photos that are asked about, through the very backbones that a feature file or a model file records.

encoder = PhotoEncoder(factors.about["features"]); encoder([photo])    # n encoded images -> (n, D) float32
"""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..base.arrays import Array
from ..base.errors import VbprError
from ..base.files import read_bytes
from ..data.images.source import MAX_BYTES, BadImage, Pixels
from ..networks.prepare import prepare
from ..stores.features.layout import ELSEWHERE
from ..stores.model.head import BLIND

if TYPE_CHECKING:
    from ..networks.backbone import Backbone


class PhotoEncoder:
    """The backbones that a file records, loaded once: photos -> features.

    Several feature files give several backbones, whose features are put side by side as they were in training.

    Attributes:
        parts: of each backbone, how it wants its images, and what encodes them.
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
            recorded: the provenance of each feature file.
            weights: a file instead of the recorded one, when that has moved; its tensors must be the same.
            engine: torch starts at once; auto may compile for seconds, which only many images pay back.

        Raises:
            VbprError: nothing is recorded, or weights are gone or others by now.
        """
        from .engines import Encoder

        self.parts = []
        for made, file in zip(recorded, weights_files(recorded, weights), strict=True):
            backbone = recorded_backbone(made, file)
            able = "torch" if made.get("fallback") else engine  # an engine that failed at this network before
            encoder = Encoder(backbone, device, made.get("precision", "exact"), able, batch)
            self.parts.append((backbone.preprocessing, encoder))

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


def weights_files(recorded: list[dict[str, Any]], weights: Path | str | None) -> list[Path | str | None]:
    """The weights file of each recorded backbone, `weights` in the place of the one that has moved; None: no file.

    Raises:
        VbprError: nothing is recorded, or it is open which of them has moved.
    """
    if not recorded:
        raise VbprError(BLIND)
    files: list[Path | str | None] = [made.get("weights_file") for made in recorded]
    if weights is None:
        return files
    lost = [n for n, file in enumerate(files) if file is not None and not Path(file).exists()]
    moved = [0] if len(recorded) == 1 else lost
    if len(moved) != 1:
        names = " and ".join(recorded[n]["backbone"] for n in moved or range(len(recorded)))
        raise VbprError(f"--weights FILE takes the place of one file that has moved; here it might be of {names}")
    files[moved[0]] = weights
    return files


def recorded_backbone(made: dict[str, Any], file: Path | str | None) -> "Backbone":
    """The backbone of a provenance, with the weights in `file` where they are in one.

    Raises:
        VbprError: the file is gone, or holds other weights.
    """
    from ..networks import registry

    if made["weights"] == ELSEWHERE:
        raise VbprError(
            f"{made['backbone']} are features made elsewhere ({made['preprocessing']}), by no backbone on record: no "
            "photo can be encoded like them; ask by --item or --liked"
        )
    if file is not None and not Path(file).exists():
        raise VbprError(
            f"a photo must go through {made['backbone']} with the weights in {file}, which is not there; give "
            "that file with --weights"
        )
    backbone = registry.recorded_backbone(made["backbone"], file, file is None and made["weights"] == "random")
    recorded = made.get("weights_digest"), made["preprocessing"]
    if (backbone.digest, str(backbone.preprocessing)) != recorded:
        raise VbprError(
            f"the photo would go through {backbone.name} ({backbone.weights}), but the features came from "
            f"{made['backbone']} ({made['weights']}); give those weights with --weights"
        )
    return backbone


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
