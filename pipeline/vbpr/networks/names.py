"""Names of backbones: `resnet50`, `lite0:blocks.2,final` with layers of it, or `my_eyes.py:Net` of one's own."""

from ..base.own import is_own


def parted(name: str) -> tuple[str, str]:
    """The network, and its layers ("" where the last alone is meant); what is one's own has none to name."""
    if is_own(name):
        return name, ""
    network, _, layers = name.partition(":")
    return network, layers


__all__ = ["parted"]
