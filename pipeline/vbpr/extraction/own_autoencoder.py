"""The autoencoder of a feature file, trained on the catalogue's own images."""

from pathlib import Path
from typing import Any

from ..base.errors import VbprError
from ..base.stopping import Stopped, stop_signals
from ..data.dataset import Dataset
from ..data.images.source import ImageSource
from ..stores.features.layout import describe
from ..stores.features.store import FeatureStore


def autoencoder(path: Path, data: Dataset, source: ImageSource, device: Any, recipe: dict[str, Any]) -> Path:
    """The weights of a feature file's autoencoder: those that the file was made with; for a new file, weights that are
    trained on these images now.

    Args:
        recipe: options of `train_autoencoder`.

    Raises:
        VbprError: the file was made by another backbone or recipe, or with an autoencoder that is gone.
        Stopped: Ctrl-C or SIGTERM.
    """
    from ..networks.cae_training import check_training, train_autoencoder

    beside = autoencoder_of(path)
    if not path.exists():
        if Path(source.name).is_dir() and path.resolve().is_relative_to(Path(source.name).resolve()):
            raise VbprError(
                f"--out {path} lies among the images, where the next run would take the autoencoder's picture "
                f"{beside.with_suffix('.png').name} for one; choose another folder"
            )
        with stop_signals() as stopping:
            train_autoencoder(source, beside, data=data.name, device=device, **recipe)
            if stopping():
                raise Stopped(f"stopped with {beside} trained; run the same command again to resume")
        return beside
    provenance = FeatureStore(path).provenance
    made_with = provenance.get("weights_file")
    if provenance["backbone"] != "cae" or not made_with:
        raise VbprError(
            f"{path} was made by {describe(provenance)}; this run would train an autoencoder; delete the file or "
            "choose another with --out"
        )
    weights = next((file for file in (Path(made_with), beside) if file.is_file()), None)
    if weights is None:
        raise VbprError(
            f"{path} was made with {made_with}, which is gone; give it with --weights, or choose another --out"
        )
    check_training(weights, path, **recipe)
    return weights


def autoencoder_of(path: Path) -> Path:
    """Where the autoencoder of a new feature file goes: artifacts/cae.h5 -> artifacts/cae.cae.safetensors."""
    return path.with_name(f"{path.name.removesuffix('.h5')}.cae.safetensors")


__all__ = ["autoencoder", "autoencoder_of"]
