"""Weights of a blend's parts, chosen by validation items alone; see `parts.Weights` for what is weighted.

    maximises  auc AUC + early mean 1 / log2(1 + rank) + cold AUC_cold + cold / 3 AUC_unseen
               - hinges where AUC (all, cold, unseen) is less than the best part's
               - penalties: towards equal weights of warm and cold items, a sum of TOTAL, and, the more so the fewer
                 validation items there are, PRIOR

The rank of a validation item is one and the sum of sigmoid((x_uj - x_ui) / WIDTH) over the blend's TOP highest items j
and REST random ones, which stand for the others. Nothing is read of the test items: they are candidates as any other.
"""

import dataclasses

import numpy as np
import torch
from scipy.optimize import minimize

from ...base.arrays import Array
from ...base.progress import Progress
from ...data.split import Split
from .parts import WARM, Scores, Weights

PAIRS, FEWEST = 2000, 100  # validation items that are looked at, and those that are too few to choose by
SCORES = 5e8  # of one part that are looked at
TOP, REST, ROUNDS = 100, 200, 2
WIDTH, TOTAL, STEPS = 0.1, 6.0, 60
APART, SUMMED, FEW = 0.003, 0.02, 15.0  # of penalties
UNDER = ((0.003, 0.003), (0.01, 0.01), (0.01, 0.01))  # of the hinges of all, cold and unseen: margin, width
GROUPS = ("auc", "auc_cold", "auc_unseen")  # of validation items
RARE = 30  # cold validation items whose figures count half
OBJECTIVES = {  # of the option: weights of AUC, of early ranks, of cold items
    "balanced": (2.0, 10.0, 0.2),
    "all": (1.0, 0.0, 0.0),
    "cold": (0.3, 0.0, 1.0),
    "unseen": (0.3, 0.0, 3.0),
    "ndcg@10": (0.1, 10.0, 0.0),
    "recall@20": (0.3, 10.0, 0.0),
}


@dataclasses.dataclass(frozen=True)
class Sample:
    """Validation items against their candidates.

    Attributes:
        difference: (n, m, 2 P) float32: of a candidate's and the item's share in x of each weight.
        stands_for: (n, m) how many items a candidate stands for. candidates: (n,) of all.
        groups: (3, n) 1 / count where the item is of all, cold (under 5 purchases), unseen; trust: of each group.
        best: the best part's AUC in each group; of_parts: (P, 3) of every part.
    """

    difference: torch.Tensor
    stands_for: torch.Tensor
    candidates: torch.Tensor
    groups: torch.Tensor
    trust: list[float]
    of_parts: torch.Tensor

    @property
    def best(self) -> list[float]:
        return self.of_parts.amax(0).tolist()

    @property
    def sizes(self) -> list[int]:
        """How many items there are of each group."""
        return torch.count_nonzero(self.groups, 1).tolist()


@dataclasses.dataclass(frozen=True)
class Choice:
    """The chosen weights, and what validation items say of the blend and of each part: see `told`."""

    weights: Weights
    blend: dict[str, float] = dataclasses.field(default_factory=dict)
    parts: list[dict[str, float]] = dataclasses.field(default_factory=list)

    def of(self, places: list[int]) -> "Choice":
        """The same of some of the parts."""
        w = self.weights
        some = dataclasses.replace(w, warm=w.warm[places], cold=w.cold[places])
        return Choice(some, self.blend, [self.parts[p] for p in places] if self.parts else [])


def choose(split: Split, scores: Scores, prior: Array, objective: str = "balanced", seed: int = 0) -> Choice:
    """Weights for the parts by the validation items; of `prior`, (P, 2), warm and cold, where they are too few."""
    start = values = prior.ravel() * TOTAL / prior.sum()
    if split.validation.nnz < FEWEST:
        return Choice(Weights(values[::2], values[1::2]))
    rng = np.random.default_rng(seed)
    with Progress("choose weights", ROUNDS, "rounds") as bar:
        for _ in range(ROUNDS):
            sample = draw(split, scores, values, rng)
            arguments = sample, start, OBJECTIVES[objective]
            bounds = [(0, None)] * len(start)
            values = minimize(loss, values, arguments, "L-BFGS-B", True, bounds=bounds, options={"maxiter": STEPS}).x
            bar.advance(1)
    return Choice(Weights(values[::2], values[1::2]), *told(sample, values))


def told(sample: Sample, values: Array) -> tuple[dict[str, float], list[dict[str, float]]]:
    """Figures of the blend; and of each part alone, with what the blend loses without it, the others as they are."""
    blend = figures(sample, values)
    parts = []
    for p, alone in enumerate(sample.of_parts.tolist()):
        without = values.copy()
        without[2 * p : 2 * p + 2] = 0
        less = figures(sample, without) if values[2 * p : 2 * p + 2].any() else blend
        own = {key: auc for key, auc, n in zip(GROUPS, alone, sample.sizes, strict=True) if n}
        parts.append(own | {f"brings_{key}": blend[key] - less[key] for key in ("auc", "ndcg@10")})
    return blend, parts


def figures(sample: Sample, values: Array) -> dict[str, float]:
    """AUC of all, cold and unseen items, where there are some, and NDCG@10."""
    gap = sample.difference @ torch.from_numpy(values.astype(np.float32))
    above = (((gap > 0).float() + 0.5 * (gap == 0)) * sample.stands_for).sum(1)
    aucs = (sample.groups @ (1 - above / sample.candidates)).tolist()
    early = torch.where(above < 10, 1 / torch.log2(2 + above), 0).mean()
    return {key: auc for key, auc, n in zip(GROUPS, aucs, sample.sizes, strict=True) if n} | {"ndcg@10": float(early)}


def shares(counts: Array) -> Array:
    """(I, 2) float32 of a part's warm and cold weight in an item's."""
    warm = counts / (counts + WARM)
    return np.stack([warm, 1 - warm], 1).astype(np.float32)


def draw(split: Split, scores: Scores, values: Array, rng: np.random.Generator) -> Sample:
    """Validation items of some blocks of users, and candidates by the blend so far."""
    of_parts = shares(split.item_counts)
    weights = torch.from_numpy((of_parts @ values.reshape(-1, 2).T).astype(np.float32).T.copy())
    observed = (split.train + split.validation).tocsr()
    differences, stands, counts = [], [], []
    items: list[int] = []
    blocks, wanted = scores.blocks(), int(np.clip(SCORES / len(of_parts), PAIRS / 4, PAIRS))
    for place in np.random.default_rng(0).permutation(len(blocks)):  # the same ones in every round: they are kept
        block = blocks[place]
        held = split.validation[block].tocoo()
        if not held.nnz:
            continue
        z = scores(block)
        blend = torch.zeros(z.shape[1:])
        for part, of_items in zip(z, weights, strict=True):
            blend.addcmul_(part, of_items)
        seen = observed[block].tocoo()
        blend[torch.from_numpy(seen.row), torch.from_numpy(seen.col)] = -torch.inf
        stand, candidates = stand_ins(blend, rng)
        some = rng.permutation(held.nnz)[: wanted - len(items)]
        user, item = held.row[some], held.col[some]
        differences.append(differ(z, of_parts, torch.from_numpy(user), torch.from_numpy(item), candidates[user]))
        stands.append(stand[user])
        counts.append(torch.isfinite(blend).sum(1)[user])
        items.extend(item.tolist())
        if len(items) >= wanted:
            break
    return sample_of(torch.cat(differences), torch.cat(stands), torch.cat(counts).float(), split.item_counts[items])


def stand_ins(blend: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """(n, m) how many items a candidate stands for, and (n, m) candidates: the TOP highest items, then random ones."""
    value, top = torch.topk(blend, min(TOP, blend.shape[1] - 1), 1)
    rest = torch.from_numpy(rng.integers(0, blend.shape[1], (len(blend), REST)))
    drawn = blend.gather(1, rest)
    fit = (drawn < value[:, -1:]) & torch.isfinite(drawn)
    others = torch.isfinite(blend).sum(1, keepdim=True) - top.shape[1]
    each = fit * (others.clamp(min=0) / fit.sum(1, keepdim=True).clamp(min=1))
    return torch.cat([torch.isfinite(value).float(), each], 1), torch.cat([top, rest], 1)


def differ(
    z: torch.Tensor, of_parts: Array, user: torch.Tensor, item: torch.Tensor, candidates: torch.Tensor
) -> torch.Tensor:
    """(n, m, 2 P): a candidate's share of each weight less the item's."""
    share = torch.from_numpy(of_parts)
    out = torch.empty(*candidates.shape, 2 * len(z))
    for p, part in enumerate(z):
        theirs = part[user[:, None], candidates][:, :, None] * share[candidates]
        out[:, :, 2 * p : 2 * p + 2] = theirs - (part[user, item][:, None] * share[item])[:, None]
    return out


def sample_of(difference: torch.Tensor, stands_for: torch.Tensor, candidates: torch.Tensor, counts: Array) -> Sample:
    member = torch.from_numpy(np.stack([counts < under for under in (np.inf, 5, 1)])).float()
    size = member.sum(1)
    groups = member / size.clamp(min=1)[:, None]
    aucs = []
    for p in range(difference.shape[2] // 2):
        gap = difference[:, :, 2 * p] + difference[:, :, 2 * p + 1]
        above = (((gap > 0).float() + 0.5 * (gap == 0)) * stands_for).sum(1)
        aucs.append(groups @ (1 - above / candidates))
    trust = [1.0, *(float(n / (n + RARE)) for n in size[1:])]
    return Sample(difference, stands_for, candidates, groups, trust, torch.stack(aucs))


def loss(values: Array, sample: Sample, start: Array, objective: tuple[float, float, float]) -> tuple[float, Array]:
    """The objective's negative, and its gradient."""
    auc_weight, early, cold = objective
    n, m, width = sample.difference.shape
    flat = sample.difference.reshape(-1, width)
    chance = torch.sigmoid((flat @ torch.from_numpy(values.astype(np.float32))).view(n, m) / WIDTH)
    above = (chance * sample.stands_for).sum(1)
    log = torch.log2(2 + above)
    aucs = (sample.groups @ (1 - above / sample.candidates)).tolist()
    gain, of_auc = early * float((1 / log).mean()), torch.zeros(n)
    wanted = (auc_weight, cold, cold / 3)
    for group, auc, best, trust, weight, (margin, wide) in zip(
        sample.groups, aucs, sample.best, sample.trust, wanted, UNDER, strict=True
    ):
        lack = (best + margin - auc) / wide
        gain += trust * (weight * auc - wide * np.logaddexp(0, lack))
        of_auc += float(trust * (weight + 1 / (1 + np.exp(-lack)))) * group
    by_above = -of_auc / sample.candidates - early / n / (log * log * (2 + above) * np.log(2))
    slope = (by_above[:, None] * sample.stands_for * chance * (1 - chance) / WIDTH).view(-1)
    gradient = -(flat.T @ slope).numpy().astype(float)
    apart, far, over = values[::2] - values[1::2], values - start, values.sum() - TOTAL
    few = FEW / n
    penalty = APART * apart @ apart + few * far @ far + SUMMED * over**2
    gradient += 2 * few * far + 2 * SUMMED * over
    gradient[::2] += 2 * APART * apart
    gradient[1::2] -= 2 * APART * apart
    return float(penalty - gain), gradient


__all__ = ["FEWEST", "OBJECTIVES", "Choice", "choose"]
