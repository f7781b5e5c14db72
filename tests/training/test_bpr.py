"""The closed-form gradients against finite differences and against autograd."""

import math

import numpy as np
import pytest
import scipy.sparse as sp
import torch
import torch.nn.functional as F

from vbpr.training.config import TrainConfig
from vbpr.training.configure import configure
from vbpr.training.models import MODELS
from vbpr.training.models.bpr.adam import Adam, summed
from vbpr.training.models.bpr.batches import Batch, sample_batches
from vbpr.training.models.bpr.gradients import gradients, shared_loss
from vbpr.training.models.bpr.inputs import Inputs
from vbpr.training.models.bpr.sampling import TripletSampler

USERS, ITEMS, D, K, M, H = 5, 9, 6, 3, 2, 4
CONFIG = TrainConfig(reg_users=0.3, reg_items=0.2, reg_bias=0.7, reg_head=0.05)


def setting(history=True, latent=True, visual=True, beta=True, hidden=False, seed=0):
    """Random float64 parameters and inputs of every part that is asked for."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=g, dtype=torch.float64) * 0.5

    p = {}
    if visual:
        p |= {"theta": normal(USERS, K), "E": normal(K + beta, D)}
        if history:
            p |= {"A": normal(K, D), "y": normal(ITEMS, K)}
        if hidden:
            p |= {"W": normal(H, D), "V": normal(K + beta, H)}
    if latent:
        p |= {"gamma_u": normal(USERS, M), "gamma_i": normal(ITEMS, M), "b": normal(ITEMS)}
    degree = torch.tensor([len(taken) for taken in TAKEN], dtype=torch.float64)
    shrink = torch.rand(ITEMS, generator=g, dtype=torch.float64)
    x = normal(ITEMS, D) if visual else None
    h = torch.stack([x[taken].sum(0) for taken in TAKEN]) if visual and history else None
    return p, Inputs(x, h, degree, shrink)


TAKEN = [[1], [0, 1], [1, 2, 8], [2, 3, 0, 7], [1, 2, 3, 4, 8]]  # by each user: one has no other item


def batch_of(u, i, j, weight=None, excluded=None, histories=False):
    """A batch of (B,) users, neighbours that are the same making one run."""
    users, run, length = torch.unique_consecutive(torch.as_tensor(u), return_inverse=True, return_counts=True)
    taken = None
    if histories:
        entries = [(item, r) for r, user in enumerate(users.tolist()) for item in TAKEN[user]]
        starts = np.cumsum([0] + [len(TAKEN[user]) for user in users.tolist()[:-1]])
        taken = (*torch.tensor(entries).T, torch.from_numpy(starts))
    return Batch(users, length, run, torch.as_tensor(i), torch.as_tensor(j), weight, excluded, taken)


def batches(histories=False):
    """Runs of one and of two, repeated users and items, in both kinds of batch; every user and item occurs."""
    u, i = [1, 1, 0, 2, 3, 4, 1], [0, 1, 1, 2, 3, 4, 1]
    own = batch_of(u, i, [5, 6, 7, 8, 1, 5, 5], histories=histories)
    weight = torch.tensor([1.0, 3, 1, 2, 0], dtype=torch.float64)  # the last stands there twice, its draws at the first
    excluded = torch.tensor([4, 4, 5]), torch.tensor([2, 3, 3])
    return {"own": own, "shared": batch_of(u, i, [5, 6, 7, 3, 3], weight, excluded, histories)}


def objective(p, q, batch, c):
    """The naive twin: what `gradients` documents, written out for autograd. Returns (loss, penalty)."""
    u, i, j = batch.u[batch.run], batch.i, batch.j
    shared = batch.weight is not None

    def score(users, taste, items):
        total = torch.zeros((), dtype=torch.float64)
        if "E" in p:
            k = p["theta"].shape[1]
            encoded = q.x[items] @ p["E"].T
            if "W" in p:
                encoded = encoded + (2 / H) ** 0.5 * F.relu(q.x[items] @ p["W"].T) @ p["V"].T
            total = total + ((p["theta"][users] + taste) * encoded[..., :k]).sum(-1) + encoded[..., k:].sum(-1)
        if "gamma_u" in p:
            total = total + (p["gamma_u"][users] * p["gamma_i"][items]).sum(-1) * q.shrink[items]
            total = total + p["b"][items] * q.shrink[items]
        return total

    taste = 0.0
    if "A" in p:
        others = [
            [item for item in TAKEN[user] if item != own] for user, own in zip(u.tolist(), i.tolist(), strict=True)
        ]
        sums = [(q.x[past] @ p["A"].T + q.shrink[past, None] * p["y"][past]).sum(0) for past in others]
        taste = torch.stack([total / max(1, len(past)) ** 0.5 for total, past in zip(sums, others, strict=True)])
    xi = score(u, taste, i)
    if shared:
        columns = [score(u, taste, item.expand(len(u))) for item in j]
        allowed = torch.ones(len(u), len(j))
        if batch.excluded is not None:
            allowed[batch.excluded] = 0
        weight = batch.weight * allowed / (len(u) * batch.weight.sum())
        loss = -(F.logsigmoid(xi[:, None] - torch.stack(columns, 1)) * weight).sum()
        share = batch.weight / batch.weight.sum()
    else:
        loss = -F.logsigmoid(xi - score(u, taste, j)).mean()
        share = torch.full((len(u),), 1 / len(u), dtype=torch.float64)
    penalty = torch.zeros((), dtype=torch.float64)
    for name, rate in (("theta", c.reg_users), ("gamma_u", c.reg_users)):
        if name in p:
            penalty = penalty + rate / 2 * p[name][u].square().sum(1).mean()
    if "gamma_i" in p:
        squares = p["gamma_i"].square().sum(1)
        penalty = penalty + c.reg_items / 2 * (squares[i].mean() + (share * squares[j]).sum())
        penalty = penalty + c.reg_bias / 2 * (p["b"][i].square().mean() + (share * p["b"][j].square()).sum() / 10)
    if "y" in p:
        penalty = penalty + c.reg_items / 2 * p["y"][i].square().sum(1).mean()
    for name in ("E", "A", "W", "V"):
        if name in p:
            penalty = penalty + c.reg_head / 2 * p[name].square().sum()
    return loss, penalty


def dense(p, grads):
    """Row gradients added up into the parameters' shapes."""
    out = {}
    for name, (rows, grad) in grads.items():
        out[name] = grad if rows is None else torch.zeros_like(p[name]).index_add_(0, rows, grad)
    return out


@pytest.mark.parametrize("mode", ["own", "shared"])
@pytest.mark.parametrize(
    "parts",
    [{}, {"history": False}, {"beta": False}, {"latent": False}, {"visual": False}, {"hidden": True}],
    ids=["all", "no history", "no beta", "visual alone", "latent alone", "hidden layer"],
)
def test_gradients_equal_finite_differences(mode, parts):
    p, q = setting(**parts)
    batch = batches("y" in p)[mode]
    loss, grads = gradients(p, q, batch, CONFIG)
    assert float(loss) == pytest.approx(float(objective(p, q, batch, CONFIG)[0]), rel=1e-12)
    assert grads.keys() == p.keys()
    for name, grad in dense(p, grads).items():
        numeric = torch.zeros_like(p[name])
        flat, step = p[name].view(-1), 1e-5
        for at in range(len(flat)):
            value, sides = float(flat[at]), []
            for sign in (1, -1):
                flat[at] = value + sign * step
                sides.append(float(sum(objective(p, q, batch, CONFIG))))
            flat[at] = value
            numeric.view(-1)[at] = (sides[0] - sides[1]) / (2 * step)
        assert float((grad - numeric).norm() / numeric.norm()) < 1e-6, name


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("mode", ["own", "shared"])
def test_several_adam_steps_equal_autograd_with_torch_adam(mode, hidden):
    p, q = setting(hidden=hidden)
    batch = batches(True)[mode]
    if mode == "shared":  # every item in the batch: then lazy Adam is Adam
        users = batch.u[batch.run]
        batch = batch_of(users, batch.i, torch.arange(ITEMS), torch.ones(ITEMS, dtype=torch.float64), None, True)
    twin = {name: value.clone().requires_grad_() for name, value in p.items()}
    ours, theirs = Adam(p), torch.optim.Adam(list(twin.values()), lr=0.05)
    for _ in range(5):
        ours.step(p, gradients(p, q, batch, CONFIG)[1], 0.05)
        theirs.zero_grad()
        sum(objective(twin, q, batch, CONFIG)).backward()
        theirs.step()
    for name in p:
        torch.testing.assert_close(p[name], twin[name].detach(), rtol=1e-8, atol=1e-10)


def test_adam_leaves_rows_outside_the_batch_alone():
    p, q = setting()
    before = {name: value.clone() for name, value in p.items()}
    batch = batch_of([1, 1], [2, 3], [4, 4])
    adam = Adam(p)
    adam.step(p, gradients(p, q, batch, CONFIG)[1], 0.1)
    for name, touched in (("theta", [1]), ("gamma_u", [1]), ("gamma_i", [2, 3, 4]), ("b", [2, 3, 4])):
        moved = (p[name] != before[name]).reshape(len(p[name]), -1).any(1)
        assert torch.nonzero(moved).flatten().tolist() == touched
        assert not adam.v[name][~moved].any()


def test_rows_move_as_under_torchs_sparse_adam():
    """Over many steps: rows come, are skipped, come back, and occur several times in a step."""
    g = torch.Generator().manual_seed(1)
    p = {"t": torch.randn(20, 3, generator=g, dtype=torch.float64)}
    twin = p["t"].clone().requires_grad_()
    adam, theirs = Adam(p), torch.optim.SparseAdam([twin], lr=0.1)
    for step in range(60):
        rows = torch.randint(20 if step % 7 else 3, (11,), generator=g)
        grad = torch.randn(11, 3, generator=g, dtype=torch.float64)
        adam.step(p, {"t": summed(rows, grad)}, 0.1)
        twin.grad = torch.sparse_coo_tensor(rows[None], grad, (20, 3), check_invariants=True)
        theirs.step()
    torch.testing.assert_close(p["t"], twin.detach(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "values", [{}, {"shared_negatives": 0}, {"negatives": "in-batch"}, {"positives": "users"}, {"per_user": 1}]
)
def test_batches_hold_what_they_say(values):
    rows = [[0, 1, 2, 5], [3], [0, 7, 9], [2, 3, 4, 5, 6, 8]]
    indptr = np.cumsum([0, *map(len, rows)])
    train = sp.csr_matrix((np.ones(indptr[-1]), np.concatenate(rows), indptr), shape=(4, 10))
    c = configure("visual", **{"shared_negatives": 12, "per_user": 3} | values)
    generator = torch.Generator().manual_seed(0)
    kind = "uniform" if c.negatives == "in-batch" else c.negatives
    sampler = TripletSampler(
        train, torch.device("cpu"), generator, positives=c.positives, negatives=kind, popularity_share=0.5
    )
    order = torch.stack([sampler.epoch(epoch, c.per_user)[:12] for epoch in range(20)])
    for batch in sample_batches(sampler, order, c, histories=True):
        items, row, starts = batch.taken
        ends = [*starts[1:].tolist(), len(items)]
        assert row.tolist() == np.repeat(np.arange(len(ends)), np.array(ends) - starts.numpy()).tolist()
        assert [items[a:b].tolist() for a, b in zip(starts, ends, strict=True)] == [rows[u] for u in batch.u]
        assert batch.run.tolist() == np.repeat(np.arange(len(batch.u)), batch.length.numpy()).tolist()
        users = batch.u[batch.run].tolist()
        assert all(i in rows[u] for u, i in zip(users, batch.i.tolist(), strict=True))
        if batch.weight is None:
            assert not any(j in rows[u] for u, j in zip(users, batch.j.tolist(), strict=True))
            continue
        drawn = batch.j[batch.weight > 0].tolist()
        assert len(batch.j) == batch.weight.sum() == 12 and len(set(drawn)) == len(drawn)
        excluded = set(zip(*(t.tolist() for t in batch.excluded), strict=True))
        for column, j in enumerate(batch.j.tolist()):
            if batch.weight[column]:
                assert {n for n, col in excluded if col == column} == {n for n, u in enumerate(users) if j in rows[u]}
        if c.negatives == "in-batch":
            expected = torch.bincount(batch.i, minlength=10)
            assert torch.equal(torch.bincount(batch.j, batch.weight, minlength=10), expected.to(torch.float64))


def pair_scored(x: float, n: int = 128):
    """n users with bias alone, so that each has x_ui - x_uj = x."""
    p = {"b": torch.zeros(2 * n, dtype=torch.float64)}
    p["b"][:n] = x
    q = Inputs(None, None, torch.ones(n), torch.ones(2 * n, dtype=torch.float64))
    batch = batch_of(torch.arange(n), torch.arange(n), torch.arange(n, 2 * n))
    return p, q, batch


def test_loss_and_gradient_at_zero():
    loss, grads = gradients(*pair_scored(0.0), TrainConfig(reg_bias=0.0))
    assert 128 * float(loss) == pytest.approx(88.7228, abs=1e-4)
    rows, grad = grads["b"]
    sums = 128 * grad  # the loss is a mean: times B, it is the sum's gradient
    assert torch.allclose(sums[rows < 128], torch.tensor(-0.5, dtype=torch.float64))
    assert torch.allclose(sums[rows >= 128], torch.tensor(0.5, dtype=torch.float64))


@pytest.mark.parametrize(("x", "loss"), [(100.0, 0.0), (-100.0, 100.0)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_loss_is_finite_far_from_zero(x, loss, dtype):
    p, q, batch = pair_scored(x)
    p = {"b": p["b"].to(dtype)}
    found, grads = gradients(p, q, batch, TrainConfig(reg_bias=0.0))
    assert float(found) == pytest.approx(loss, abs=1e-12)
    assert torch.isfinite(grads["b"][1]).all()


def test_mean_convention_times_batch_is_the_published_sum():
    """B x (mean loss, lambda of the head / B) = sum loss with lambda; users' lambda is the same in both."""
    p, q = setting(history=False, latent=False, beta=False)
    batch, c = batches()["own"], TrainConfig(reg_users=1.0, reg_head=1e-3 / 7)
    grads = dense(p, gradients(p, q, batch, c)[1])
    twin = {name: value.clone().requires_grad_() for name, value in p.items()}
    users = batch.u[batch.run]
    x = ((twin["theta"][users]) * ((q.x[batch.i] - q.x[batch.j]) @ twin["E"].T)).sum(1)
    published = -F.logsigmoid(x).sum() + 1e-3 / 2 * twin["E"].square().sum() + twin["theta"][users].square().sum() / 2
    published.backward()
    for name in p:
        torch.testing.assert_close(7 * grads[name], twin[name].grad, rtol=1e-10, atol=1e-12)


def test_report_preset_is_the_published_one_in_the_mean_convention():
    report, published = MODELS["visual"].presets["report"], MODELS["dvbpr"].defaults
    assert report["reg_head"] / 2 * report["batch"] == pytest.approx(1e-3)  # the report's 1e-3 sum W^2 has no half
    assert published["reg_head"] * published["batch"] == pytest.approx(1e-3)  # DVBPR's 1e-3 / 2 sum W^2 has one
    assert (report["reg_users"], report["lr"], report["dim"]) == (1.0, 1e-4, 50)
    assert all((told["positives"], told["negatives"]) == ("users", "uniform") for told in (report, published))


def test_penalty_counts_the_users_of_the_batch_and_no_others():
    n, k = 3, 50
    p = {"theta": torch.ones(4, k, dtype=torch.float64), "E": torch.zeros(k, 2, dtype=torch.float64)}
    q = Inputs(torch.ones(3, 2, dtype=torch.float64), None, torch.ones(4), torch.ones(3))
    batch = batch_of([0, 0, 1], [0, 0, 0], [1, 1, 1])
    _, grads = gradients(p, q, batch, TrainConfig(reg_users=1.0, reg_head=0.0))
    total = n * dense(p, grads)["theta"]  # E is 0, so only the penalty pulls; times B it is the published sum
    assert total.sum(1).tolist() == [2 * k, k, 0, 0]
    assert float((total * p["theta"]).sum() / 2) == pytest.approx(75)
    assert float(p["theta"].square().sum()) == 200  # what a penalty of the whole table would come to


def test_loss_at_start_is_ln_2_when_nothing_is_known():
    p, q = setting()
    zero = {name: torch.zeros_like(value) for name, value in p.items()}
    batch = batches()["own"]
    assert float(gradients(zero, q, batch, CONFIG)[0]) == pytest.approx(math.log(2))
    shared = batch_of(batch.u[batch.run], batch.i, torch.arange(5, 9), torch.ones(4, dtype=torch.float64))
    assert float(gradients(zero, q, shared, CONFIG)[0]) == pytest.approx(math.log(2))
    assert np.isfinite(float(sum(objective(zero, q, shared, CONFIG))))


@pytest.mark.parametrize("kind", ["bpr", "softmax", "warp"])
def test_losses_and_their_gradients(kind):
    """Against each one's definition, written for a single positive; warp's rank weight is not differentiated."""
    g = torch.Generator().manual_seed(3)
    z = torch.randn(6, 5, generator=g, dtype=torch.float64).requires_grad_()
    weight = torch.tensor([1.0, 2, 1, 3, 0], dtype=torch.float64)  # the last stands elsewhere already
    allowed = torch.ones(6, 5, dtype=torch.bool)
    allowed[2, 1] = allowed[4] = False  # one positive has no negative at all
    total = torch.zeros((), dtype=torch.float64)
    for row, ok in zip(z, allowed, strict=True):
        drawn = torch.repeat_interleave(row[ok > 0], weight[ok > 0].long())  # each negative as often as it was drawn
        if kind == "bpr":
            total = total - F.logsigmoid(-drawn).sum() / weight.sum()
        elif kind == "softmax":
            total = total - F.log_softmax(torch.cat([drawn.new_zeros(1), drawn]), 0)[0]
        elif len(violators := drawn[drawn > -1]):
            rank = 100 * len(violators) / len(drawn)
            total = total + math.log(1 + rank) / math.log(101) * (1 + violators).mean()
    loss, grad = shared_loss(z.detach().masked_fill(~allowed, -torch.inf), weight, kind, 100)
    assert float(loss) == pytest.approx(float(total.detach() / 6), rel=1e-12)
    (total / 6).backward()
    torch.testing.assert_close(grad, z.grad, rtol=1e-10, atol=1e-14)
