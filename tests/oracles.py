"""Random factors with held-out items, and the slow definitions that fast figures must equal."""

import numpy as np
import scipy.sparse as sp
import torch

from vbpr import Factors
from vbpr.evaluation.ranks import held_out_ranks

USERS, ITEMS = 13, 40


def case(seed=0, ties=True, several=True, users=USERS, items=ITEMS):
    """Integer factors (so that scores tie often), a train matrix and disjoint held-out items."""
    rng = np.random.default_rng(seed)
    draw = (lambda s: rng.integers(-2, 3, s)) if ties else rng.standard_normal
    factors = [torch.tensor(draw(s), dtype=torch.float32) for s in ((users, 3), (items, 3), (items,))]
    train, held = np.zeros((users, items), bool), np.zeros((users, items), bool)
    for u in range(users):
        mine = rng.permutation(items)
        a, b = rng.integers(1, 12), rng.integers(0, 4) if several else 1
        train[u, mine[:a]], held[u, mine[a : a + b]] = True, True
    held[0] = False  # a user without held-out items
    return factors, train, held


def ranks_of(factors, train, held, **options):
    csr = [sp.csr_matrix(m.astype(np.float32)) for m in (held, train | held)]
    return held_out_ranks(*factors, *csr, **options)


def scores_of(factors):
    users, items, bias = (f.double().numpy() for f in factors)
    return users @ items.T + bias


def brute_auc(scores, train, held, strict):
    """The definition, in a double loop."""
    out = []
    for u in range(len(scores)):
        mine = np.flatnonzero(held[u])
        others = [j for j in range(scores.shape[1]) if not train[u, j] and not held[u, j]]
        values = []
        for i in mine:
            total = 0.0
            for j in others:
                total += 1.0 if scores[u, i] > scores[u, j] else 0.5 * (scores[u, i] == scores[u, j]) * (not strict)
            values.append(total / len(others))
        if values:
            out.append(np.mean(values))
    return np.array(out)


def random_factors(seed=0, users=40, items=60):
    """Random factors, one validation item and three test items a user."""
    rng = np.random.default_rng(seed)
    parts = np.zeros((3, users, items), np.float32)
    for u in range(users):
        order = rng.permutation(items)
        parts[0, u, order[:6]], parts[1, u, order[6]], parts[2, u, order[7:10]] = 1, 1, 1
    factors = (rng.standard_normal(s).astype(np.float32) for s in ((users, 4), (items, 4), items))
    return Factors(*factors, np.arange(users).astype(str), np.arange(items).astype(str), *map(sp.csr_matrix, parts))
