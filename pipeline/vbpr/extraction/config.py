"""The options of extraction: the declarations of what `extract`, and `train_autoencoder` for `cae`, take by name."""

from ..base.options import Option
from ..executors.options import CLUSTER

ENCODING = (
    Option("random_weights", "Untrained weights, recorded as such", bool, False),
    Option("precision", "exact (within 1e-3 of float32) or fast (bfloat16)", str, "exact"),
    Option("engine", "auto, torch, or openvino (CPU; the `openvino` extra)", str, "auto"),
    Option("device", "auto (CUDA where there is one), cpu, cuda or cuda:N", str, "auto"),
    Option(
        "batch",
        "Images a step [default: 16; on a GPU the fastest that fits]",
        int | None,
        least=1,
        most=65536,
        ranged=True,
    ),
    Option("threads", "Decoding threads [default: one a core]", int | None, least=1, most=1024, ranged=True),
    Option("images", "Where the images are, if not in --data: folder, tar, zip; s3://, gs://, http(s)://", str | None),
    Option("id_field", "WebDataset, img2dataset: the field that is the item's id [default: what fits]", str | None),
    Option("views", "Of an item's several pictures: mean of their features, or the first", str, "mean"),
    Option(
        "max_shared",
        "A picture that more items than this share is no photo of any [default: no limit]",
        int | None,
        least=1,
        ranged=True,
    ),
    Option("max_bad", "Largest share of images that may be unusable", float, 0.05, most=1, ranged=True),
    Option("verify", "Check the file's digests first; encode anew what has changed in it", bool, False),
    Option("layer", "Layers side by side, such as blocks.2,final, or all [default: the last alone]", str | None),
    CLUSTER,
)
AUTOENCODER = (
    Option("recipe", "cae: improved, or report: as published", str, "improved"),
    Option("epochs", "cae: passes over the images [default: the recipe's]", int | None, least=1, ranged=True),
    Option("image_size", "cae: pixels of a side [default: the recipe's]", int | None, least=32, ranged=True),
)

__all__ = ["AUTOENCODER", "ENCODING"]
