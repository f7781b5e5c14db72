"""What is published of the original data sets: their counts, and the AUC of the report's table 7.1.

PUBLISHED["Amazon Fashion"].auc["dvbpr"]        # 0.783
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Published:
    """Counts of a data set, and the report's AUC by method (cae and inception: features under its visual ranker).

    Attributes:
        users, items, interactions: as the report counts them.
        train: train interactions.
        auc: test AUC by method, one sampled negative a user, best epoch on test.
    """

    users: int
    items: int
    interactions: int
    train: int
    auc: dict[str, float]


PUBLISHED = {
    "Amazon Fashion": Published(45184, 166270, 358003, 267635, {"dvbpr": 0.783, "cae": 0.52, "inception": 0.764}),
    "Amazon Men": Published(34244, 110636, 254870, 186382, {"dvbpr": 0.74, "cae": 0.51, "inception": 0.723}),
    "Tradesy": Published(33864, 326393, 723137, 655409, {"dvbpr": 0.78, "cae": 0.508, "inception": 0.721}),
}


def recognise(users: int, items: int, interactions: int) -> str | None:
    """The published data set with exactly these counts."""
    counts = (users, items, interactions)
    return next((name for name, p in PUBLISHED.items() if (p.users, p.items, p.interactions) == counts), None)


__all__ = ["PUBLISHED", "Published", "recognise"]
