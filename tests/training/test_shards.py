"""Training by shards: the number of shards decides the result, and who trains them does not, whatever dies."""

import contextlib
import dataclasses
import itertools
import queue
import threading

import numpy as np
import pytest
import torch

from vbpr import Interactions, Split, VbprError, configure
from vbpr.base.stopping import Stopped
from vbpr.executors import hired
from vbpr.executors.job import Place
from vbpr.training.fit import fit
from vbpr.training.item_features import ItemFeatures
from vbpr.training.models.bpr import rounds, sharded, trainer
from vbpr.training.models.bpr.batches import Batch, sample_batches
from vbpr.training.models.bpr.gradients import gradients
from vbpr.training.models.bpr.inputs import Projection, Room, inputs_of, make_inputs
from vbpr.training.models.bpr.mates import Alone, all_found
from vbpr.training.models.bpr.parameters import OF_USERS, initial
from vbpr.training.models.bpr.rounds import Host, Rounds
from vbpr.training.models.bpr.sampling import sampler_of


@pytest.fixture(scope="module")
def split():
    rng = np.random.default_rng(0)
    taken = rng.integers(60, size=90 * 9) // rng.integers(1, 4, size=90 * 9)
    return Split.make(Interactions.of(np.repeat(np.arange(90), 9).astype(str), taken.astype(str)))


@pytest.fixture(scope="module")
def features(split):
    values = np.random.default_rng(1).normal(size=(len(split.item_ids), 24))
    return ItemFeatures.of(values.astype(np.float16), np.ones(len(values), bool))


def small(model, **options):
    sizes = {"dim": 8 * (model != "bprmf"), "epochs": 3, "batch": 32, "patience": 0, "device": "cpu"}
    return configure(model, **({"factors": 4} if model != "visual" else {}), **sizes | options)


def same(a, b):
    return all(np.array_equal(getattr(a, name), getattr(b, name)) for name in ("users", "items", "bias"))


class Died(BaseException):
    """What a worker here ends by, in place of SIGKILL."""


class Threads:
    """A crew of threads, whose seats go to others when they die."""

    about: dict = {}

    def __init__(self, job, workers):
        self.job, self.workers, self.said = job, workers, queue.SimpleQueue()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def work(self, seats, again):
        worker = self.job.begin(Place("here"))
        while (seat := again.pop() if again else next(seats, None)) is not None:
            try:
                self.said.put((seat, seat, worker(seat)))
            except Died:
                again.append(seat)
                worker = self.job.begin(Place("here"))
            except BaseException as error:
                self.said.put(error)
                return
        self.said.put(None)

    def run(self, parts, stopping):
        seats, again, left = iter(parts), [], self.workers
        for _ in range(self.workers):
            threading.Thread(target=self.work, args=(seats, again), daemon=True).start()
        while left:
            stopping()
            with contextlib.suppress(queue.Empty):
                said = self.said.get(timeout=0.01)
                if isinstance(said, BaseException):
                    raise said
                left -= said is None
                if said is not None:
                    yield said


@pytest.fixture
def by(monkeypatch):
    """Has so many workers train, or this process alone."""

    def use(workers):
        config = {"cluster": "127.0.0.1:1"} if workers else {}
        make = (lambda _, job: Threads(job, workers)) if workers else hired
        monkeypatch.setattr(sharded, "hired", make)
        return config

    return use


@pytest.mark.parametrize(("model", "options"), [
    ("visual", {}),
    ("visual", {"shared_negatives": 0, "history": False, "precision": "float32"}),
    ("bprmf", {}),
    ("vbpr", {"joint": True, "patience": 1, "positives": "users"}),
])  # fmt: skip
def test_who_trains_the_shards_decides_nothing(split, features, by, model, options):
    alone = fit(split, features, small(model, shards=3, **options, **by(0)))
    for workers in (1, 2, 4):  # of four, one has no shard
        shared = fit(split, features, small(model, shards=3, **options, **by(workers)))
        assert same(alone, shared) and shared.about == alone.about, workers
    other = fit(split, features, small(model, shards=2, **options, **by(0)))
    assert other.about["config"]["shards"] == 2 and not same(alone, other)


def test_one_shard_leaves_no_trace():
    assert not {"shards", "cluster"} & set(small("visual").to_json())


def test_whoever_dies_the_others_go_on_and_the_result_is_the_same(split, features, by, tmp_path, monkeypatch):
    monkeypatch.setattr(trainer, "CHUNK", 3)
    config = {"epochs": 4, "checkpoint_minutes": 0.0}
    whole = fit(split, features, small("visual", shards=3, **config, **by(0)))
    left, lock, step = [5, 17, 30, 31, 49], threading.Lock(), trainer.Trainer.step
    count = itertools.count()

    def fatal(self, batches, rate):
        with lock:
            if left and next(count) == left[0]:
                left.pop(0)
                raise Died
        return step(self, batches, rate)

    monkeypatch.setattr(trainer.Trainer, "step", fatal)
    again = fit(split, features, small("visual", shards=3, **config, **by(2)), tmp_path / "c")
    assert not left and same(whole, again) and again.about["curve"] == whole.about["curve"]


@pytest.mark.parametrize("damage", [False, True])
def test_stopped_over_and_over_it_goes_on_to_the_same_model(split, features, by, tmp_path, monkeypatch, damage):
    """With a checkpoint that is damaged once: then from the beginning."""
    monkeypatch.setattr(trainer, "CHUNK", 4)
    config = small("vbpr", shards=2, joint=True, **by(0))
    whole, path, stops = fit(split, features, config), tmp_path / "c", 0

    @contextlib.contextmanager
    def at_once():
        yield lambda: True

    monkeypatch.setattr(sharded, "stop_signals", at_once)
    again = None
    while again is None:
        try:
            again = fit(split, features, config, path)
        except Stopped as stopped:
            assert "run the same command again to resume" in str(stopped)
            stops += 1
            assert len(list(tmp_path.glob("c.shard-1.*"))) == len(list(tmp_path.glob("c.shared.*"))) == 1
            if damage and stops == 3:
                (file,) = tmp_path.glob("c.shard-1.*")
                file.write_bytes(file.read_bytes()[:-3])
    assert stops > 4 and same(whole, again) and again.about["curve"] == whole.about["curve"]
    trained = fit(split, features, config, path)  # all is done
    assert same(whole, trained)


@pytest.mark.parametrize(("model", "options"), [
    ("vbpr", {"shared_negatives": 0}),
    ("visual", {"shared_negatives": 8, "negatives": "uniform", "item_bias": True}),
])  # fmt: skip
def test_gradients_of_shards_add_up_to_those_of_one_batch(split, features, model, options):
    """Of the users of all shards in one, which takes the same positives and negatives."""
    c, device = small(model, joint=True, precision="float32", **options), torch.device("cpu")
    whole = make_inputs(split, Projection(features, c, device), c, device)
    generator = torch.Generator().manual_seed(0)
    params = {name: value + 0.1 * torch.randn(value.shape, generator=generator) for name, value in
              initial(split, whole, c, generator).items()}  # fmt: skip
    found, batches, count = [], [], 3
    for number in range(count):
        train = split.train[number::count]
        inputs = inputs_of(train, split.item_counts, whole.x, c, device, Room(0, c, device))
        sampler = sampler_of(train, c, torch.Generator().manual_seed(7 * (1 - bool(c.shared_negatives)) * number))
        (batch,) = sample_batches(sampler, sampler.epoch(0, c.per_user)[None, : 10 + number], c, "y" in params)
        batches.append(batch)
        mine = params | {name: params[name][number::count] for name in OF_USERS if name in params}
        loss, grads = gradients(mine, inputs, batch, c)
        share = (10 + number) / 33
        grads = {name: (rows, grad * share) for name, (rows, grad) in grads.items()}
        own = {name: grads.pop(name) for name in OF_USERS if name in grads}
        found.append(((loss * share, grads), own))
    loss, grads = all_found(Alone(), [each for each, _ in found])

    # the same as one batch, with the users at their places among all
    starts = np.cumsum([0, *(len(batch.u) for batch in batches)])[:-1].tolist()
    u = torch.cat([batch.u * count + number for number, batch in enumerate(batches)])
    first = np.cumsum([0, *(len(batch.i) for batch in batches)])[:-1].tolist()
    shared = c.shared_negatives > 0
    assert not shared or all(torch.equal(batch.j, batches[0].j) for batch in batches)
    one = Batch(
        u,
        torch.cat([batch.length for batch in batches]),
        torch.cat([batch.run + a for batch, a in zip(batches, starts, strict=True)]),
        torch.cat([batch.i for batch in batches]),
        batches[0].j if shared else torch.cat([batch.j for batch in batches]),
        batches[0].weight,
        (
            torch.cat([batch.excluded[0] + a for batch, a in zip(batches, first, strict=True)]),
            torch.cat([batch.excluded[1] for batch in batches]),
        )
        if shared
        else None,
        joined(batches, starts),
    )
    expected, wanted = gradients(params, whole, one, c)
    assert torch.allclose(loss, expected, atol=1e-6)
    assert set(grads) | set(found[0][1]) == set(wanted)
    for name, (rows, grad) in grads.items():
        of, values = wanted[name]
        assert (rows is None and of is None) or torch.equal(rows, of), name
        assert torch.allclose(grad, values, atol=1e-6), name
    for name in found[0][1]:
        rows = torch.cat([own[name][0] * count + number for number, (_, own) in enumerate(found)])
        values = torch.cat([own[name][1] for _, own in found])
        order = rows.argsort()
        assert torch.equal(rows[order], wanted[name][0]), name
        assert torch.allclose(values[order], wanted[name][1], atol=1e-6), name


def joined(batches, starts):
    """What the users of batches took, as of one batch."""
    if batches[0].taken is None:
        return None
    items, runs, begins = zip(*(batch.taken for batch in batches), strict=True)
    entries = np.cumsum([0, *(len(part) for part in items)])[:-1].tolist()
    moved = [torch.cat([part + a for part, a in zip(parts, by, strict=True)])
             for parts, by in ((runs, starts), (begins, entries))]  # fmt: skip
    return torch.cat(items), *moved


def test_a_worker_holds_its_users_alone(split, features, by, monkeypatch):
    """Their factors, moments, histories and purchases, in bytes, against those of one process."""
    held = []

    def bytes_of(trainer):
        own = [t for s in trainer.shards for group in s.state.groups().values() for t in group.values()]
        purchases = [t for s in trainer.shards for t in (s.inputs.h, s.inputs.degree, *s.inputs.taken,
                     s.sampler.rows, s.sampler.columns, s.sampler.pairs)]  # fmt: skip
        return sum(t.nbytes for t in own), sum(t.nbytes for t in purchases)

    train = trainer.Trainer.train
    monkeypatch.setattr(trainer.Trainer, "train", lambda self, *a: (held.append(bytes_of(self)), train(self, *a))[1])
    fit(split, features, small("visual", shards=3, **by(0)))
    fit(split, features, small("visual", shards=3, **by(3)))
    (whole, taken), *parts = held
    assert len(parts) == 3 and sum(own for own, _ in parts) == whole
    assert all(own <= 1.1 * whole / 3 and some <= 1.1 * taken / 3 for own, some in parts), held


@pytest.mark.parametrize(("options", "words"), [
    ({"shards": 10**4}, "--shards 10,000 is more than the 90 users; lower it"),
    ({"shards": 60, "batch": 6}, "leaves a shard of 2 users without a positive in each batch of 6"),
])  # fmt: skip
def test_more_shards_than_there_is_work_for(split, features, options, words):
    with pytest.raises(VbprError, match=words):
        fit(split, features, small("visual", **options))


@pytest.mark.parametrize(("words", "error"), [
    (("--model", "als", "--shards", "2"), "--shards does nothing for --model als"),
    (("--model", "als", "--cluster", "local"), "--cluster does nothing for --model als"),
    (("--model", "bprmf", "--cluster", "local"), "give --shards, as many as workers or more"),
    (("--model", "bprmf", "--shards", "2", "--cluster", "here"), "give `local`, or HOST:PORT"),
    (("--model", "bprmf", "--shards", "0"), "--shards is 0; it must be at least 1"),
    (("--model", "bprmf", "--shards", "2", "--cluster", "local", "--plan"), "--plan tries this machine"),
])  # fmt: skip
def test_options_that_do_not_fit(refused, board, tmp_path, words, error):
    assert error in refused("train", "--data", board, "--out", tmp_path / "m.h5", *words)


def test_a_folder_that_a_worker_does_not_see_is_named(split, features, by, tmp_path, monkeypatch):
    begin = sharded.ShardsJob.begin
    elsewhere = tmp_path / "elsewhere" / "c"
    monkeypatch.setattr(
        sharded.ShardsJob, "begin", lambda job, place: begin(dataclasses.replace(job, path=elsewhere), place)
    )
    with pytest.raises(VbprError, match=r"it does not see .*elsewhere.*give --out in a folder that all machines share"):
        fit(split, features, small("visual", shards=2, **by(0)), tmp_path / "c")


def test_a_round_begins_anew_for_who_comes_late(monkeypatch):
    """And a seat that is given out again tells that who had it is gone."""
    monkeypatch.setattr(rounds, "LATE", 0.0)
    with Host("127.0.0.1") as host:
        one, other = (Rounds(host.host, host.port, 3, lambda: False) for _ in range(2))
        host.tell(1)
        with one.join(0) as first:
            assert (first.rank, first.world) == (0, 1) and not first.more()
            host.tell(2)
            both = threading.Barrier(2, timeout=60)  # who leaves early breaks the other's connection off
            late = threading.Thread(target=lambda: told.append(come(other, 1, both.wait)))
            told = []
            late.start()
            while not first.more():
                pass
        one.end(0)
        with one.join(2) as second:
            both.wait()
            assert second.world == 2
        late.join(20)
        assert {second.rank, told[0]} == {0, 1}
        one.end(1)
        host.tell(1)
        assert come(one, 3) == 0 and come(one, 3) == 0  # in another round, for the seat was taken
        assert one.store.get("round") == b"3"
        host.end()
        assert come(one, 4) is None


def come(who, seat, wait=lambda: None):
    with who.join(seat) as group:
        wait()
        return None if group is None else group.rank
