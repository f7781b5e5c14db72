"""The option of commands whose parts several machines can do."""

from ..base.options import Option

CLUSTER = Option(
    "cluster",
    "On Ray: local (this machine), or HOST:PORT of a cluster's head [default: in this process]",
    str | None,
)

__all__ = ["CLUSTER"]
