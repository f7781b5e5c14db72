"""The starting point of the visual part, against sums that are written out."""

import numpy as np
import scipy.sparse as sp
import torch

from vbpr.training.models.bpr.start import HISTORY, SCALE, leading_axes, starting_point

USERS, ITEMS, D, K = 40, 30, 12, 3


def made(seed: int = 0):
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((ITEMS, D)) * np.linspace(2, 0.5, D)
    took = rng.random((USERS, ITEMS)) < 0.15
    took[0], took[1] = False, np.eye(ITEMS, dtype=bool)[4]  # nothing, and one thing
    train = sp.csr_matrix(took.astype(np.float32))
    return x.astype(np.float32), train


def test_start_is_what_sums_over_pairs_give():
    x, train = made()
    agreement, took = np.zeros((D, D)), train.toarray() > 0
    for items in map(np.flatnonzero, took):
        for i in items:
            for j in items:
                if i != j:
                    agreement += np.outer(x[i], x[j]) / (len(items) - 1)
    axes = np.linalg.eigh(agreement)[1][:, ::-1][:, :K]
    head, y = starting_point(torch.from_numpy(x), [(torch.from_numpy(train @ x), train)], K)
    head, y = head.numpy(), y.numpy()
    np.testing.assert_allclose(head.T @ head, SCALE * axes @ axes.T, atol=1e-3)
    for j in range(ITEMS):
        others = [np.setdiff1d(np.flatnonzero(row), j) for row in took if row[j]]
        weights = [1 / len(rest) for rest in others if len(rest)]
        sums = sum(head @ x[rest].sum(0) * w for rest, w in zip([r for r in others if len(r)], weights, strict=True))
        expected = sums / sum(weights) * HISTORY if weights else np.zeros(K)
        np.testing.assert_allclose(y[j], expected, rtol=1e-3, atol=1e-4)


def test_users_of_one_thing_leave_finite_axes():
    x, _ = made()
    train = sp.csr_matrix(np.eye(ITEMS, dtype=np.float32))
    head, y = starting_point(torch.from_numpy(x), [(torch.from_numpy(train @ x), train)], K)
    np.testing.assert_allclose((head @ head.T).numpy(), SCALE * np.eye(K), atol=1e-4)
    assert not y.any()


def test_more_axes_than_columns_are_zero():
    x, train = made()
    head, y = starting_point(torch.from_numpy(x), [(torch.from_numpy(train @ x), train)], D + 5)
    assert head.shape == (D + 5, D) and not head[D:].any() and torch.isfinite(y).all()


def test_leading_axes_are_those_of_a_whole_decomposition():
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((50, 50)))[0]
    matrix = torch.from_numpy((turn * 0.7 ** np.arange(50)) @ turn.T).float()
    axes = leading_axes(lambda basis: matrix @ basis, 50, 5, torch.device("cpu")).numpy()
    np.testing.assert_allclose(np.abs(turn[:, :5].T @ axes), np.eye(5), atol=1e-2)


def test_axes_on_which_purchases_disagree_are_not_among_the_leading_ones():
    """Iteration alone goes to the values of largest size, negative ones too."""
    rng = np.random.default_rng(0)
    turn = np.linalg.qr(rng.standard_normal((60, 60)))[0]
    values = np.r_[0.95 ** np.arange(30), -(0.93 ** np.arange(30))]
    matrix = torch.from_numpy((turn * values) @ turn.T).float()
    axes = leading_axes(lambda basis: matrix @ basis, 60, 20, torch.device("cpu"))
    found = torch.diagonal(axes.T @ matrix @ axes)
    assert (found > 0).all() and found.sum() > 0.97 * values[:20].sum()
