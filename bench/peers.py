"""vbpr against Cornac, implicit and irspack on the same split, features and K: quality, speed, and the same AUC.

    python bench/peers.py --data FOLDER --features artifacts/lite0.h5
    python bench/peers.py --planted 10000 30000 60000

Each peer goes into a folder of its own under `--peers`, which only its runs see. Every run is a process of its own, on
the threads of OMP_NUM_THREADS. All are evaluated by vbpr's exact evaluator on the same items; time is that of training,
without evaluations. A peer trains on while its validation AUC is taken between epochs, and is judged at its best epoch.
Ours is trained from nothing for 1, 2, 3, 5, ... epochs up to its default, its time being that of the whole fit, set-up
included. The time to the same AUC is the first that reaches the lower of the two best validation AUCs.
"""

import argparse
import dataclasses
import inspect
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import scipy.sparse as sp
import torch
from common import OWN_NEGATIVES, PeakMemory, machine, planted, table, write_page

from vbpr.data.dataset import Dataset
from vbpr.data.split import Split
from vbpr.evaluation.evaluate import evaluate
from vbpr.evaluation.metrics import mean_auc
from vbpr.evaluation.ranks import held_out_ranks
from vbpr.stores.features.store import FeatureStore
from vbpr.stores.model.factors import Factors
from vbpr.stores.model.head import unit_rows
from vbpr.training.catalogue import align, prepare
from vbpr.training.configure import configure
from vbpr.training.fit import fit
from vbpr.training.item_features import ItemFeatures
from vbpr.training.model import factors_of
from vbpr.training.models import MODELS
from vbpr.training.models.axes import axes
from vbpr.training.models.implicit import Implicit

PEERS = {  # with what they import that is not installed with vbpr
    "cornac": ("cornac==3.0.1", "powerlaw==2.0.0"),
    "implicit": ("implicit==0.7.3",),
    "irspack": ("irspack==0.5.2", "fastprogress==1.0.5"),
}
IRSPACK = [(alpha0, reg) for alpha0 in (0.03, 0.1, 0.3) for reg in (0.003, 0.01, 0.03)]  # of which validation chooses
EPOCHS = (1, 2, 3, 5, 7, 10, 15, 20)  # that ours is trained for, up to its default
CORNACS = {  # VBPR as it was published, with the values that Cornac's has by default
    "joint": True,
    "history": False,
    "whiten": 0.0,
    "shrink": 0.0,
    "shared_negatives": 0,
    "negatives": "uniform",
    "batch": 100,
    "per_user": 1,
    "lr": 0.005,
    "schedule": "constant",
    "epochs": 10,
    "reg_users": 0.01,
    "reg_items": 0.01,
    "reg_bias": 0.01,
    "reg_head": 0.0,
}


@dataclasses.dataclass(frozen=True)
class Run:
    """A row: whose it is, what to run, and the row it is compared with."""

    whose: str
    run: Callable[["Shape", argparse.Namespace], dict[str, Any]]
    against: str = ""


@dataclasses.dataclass(frozen=True)
class Shape:
    """The data of a run."""

    split: Split
    features: ItemFeatures


class Watch:
    """A clock that stands still while the validation AUC is taken; keeps the factors of the best."""

    def __init__(self, split: Split, limit: float, every: int = 1, scores_unseen: bool = False) -> None:
        self.split, self.limit, self.every, self.about = split, limit, every, {"scores_unseen": scores_unseen}
        self.out: float = 0.0
        self.curve: list[tuple[float, float]] = []
        self.best: tuple[Any, ...] = ()
        self.start = time.perf_counter()

    @property
    def seconds(self) -> float:
        return time.perf_counter() - self.start - self.out

    @property
    def over(self) -> bool:
        return self.seconds > self.limit

    def look(self, users: Any, items: Any, bias: Any = None) -> None:
        seconds, now = self.seconds, time.perf_counter()
        copies = (None if a is None else np.array(a) for a in (users, items, bias))
        factors = factors_of(self.split, *copies, about=self.about)
        auc = validation_auc(factors)
        if not self.curve or auc > max(value for _, value in self.curve):
            self.best = (factors, seconds, (len(self.curve) + 1) * self.every)
        self.curve.append((seconds, auc))
        self.out += time.perf_counter() - now


def validation_auc(factors: Factors) -> float:
    tensors = (torch.from_numpy(a) for a in (factors.users, factors.items, factors.bias))
    return float(mean_auc(held_out_ranks(*tensors, factors.validation, factors.seen)).mean())


# ---------------------------------------------------------------------------------------------- ours


def ours(model: str, **values: Any) -> Callable[[Shape, argparse.Namespace], dict[str, Any]]:
    def run(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
        whole = configure(model, device="cpu", **values)
        curve, features = [], shape.features if MODELS[model].visual else None
        ours = MODELS[model].build is not Implicit
        with PeakMemory() as memory:
            for epochs in [*(e for e in EPOCHS if ours and e < whole.epochs), whole.epochs]:
                config = whole.changed(epochs=epochs, eval_every=epochs, patience=0)
                start = time.perf_counter()
                factors = fit(shape.split, features, config)
                seconds = time.perf_counter() - start
                curve.append((seconds, validation_auc(factors)))
        passes = sum(point["epoch"] for point in factors.about.get("curve", []))
        positives = passes * max(1, shape.split.train.nnz // whole.batch) * whole.batch
        start = time.perf_counter()
        summary = evaluate(factors, device="cpu").summary()
        return {
            "epochs": whole.epochs,
            "seconds": seconds,
            "positives": positives / seconds,
            "triplets": positives * max(1, whole.shared_negatives) / seconds,
            "memory": memory.peak,
            "evaluation": time.perf_counter() - start,
            "curve": curve,
            "summary": summary,
        }

    return run


# ---------------------------------------------------------------------------------------------- the peers


def result(watch: Watch, triplets: int, memory: float, evaluation: float | None = None) -> dict[str, Any]:
    factors, seconds, epoch = watch.best
    rate = triplets / watch.curve[-1][0]
    return {
        "epochs": epoch,
        "seconds": seconds,
        "positives": rate,
        "triplets": rate,
        "memory": memory,
        "evaluation": evaluation,
        "curve": watch.curve,
        "summary": evaluate(factors, device="cpu").summary(),
    }


def cornac_set(split: Split, matrix: sp.csr_matrix, features: np.ndarray | None = None) -> Any:
    from cornac.data import Dataset as CornacSet
    from cornac.data import ImageModality

    pairs = matrix.tocoo()
    ids = ({name: n for n, name in enumerate(names.tolist())} for names in (split.user_ids, split.item_ids))
    uir = (pairs.row, pairs.col, np.ones(matrix.nnz))
    data = CornacSet(*matrix.shape, *ids, uir, seed=0)
    if features is not None:
        data.add_modalities(
            item_image=ImageModality(features=features, ids=split.item_ids.tolist()).build(data.iid_map)
        )
    return data


def cornac_vbpr(raw: bool = False, mended: bool = False) -> Callable[..., dict[str, Any]]:
    """With Cornac's own defaults but for K.

    Args:
        raw: features as they are in the file; else standardised and each row of length one, as ours has them, with
            which it does better.
        mended: its scores of a batch are a (B,) vector plus a (B, 1) one, which makes a (B, B) matrix: every triplet's
            score gets every other's visual bias. Mended, they stay a vector.
    """

    def run(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
        import cornac.models.vbpr.recom_vbpr as module
        from cornac.eval_methods.base_method import ranking_eval
        from cornac.metrics import AUC

        if mended:
            source = inspect.getsource(module).replace("feat_diff.mm(Bp)\n", "feat_diff.mm(Bp).squeeze(1)\n")
            assert source != inspect.getsource(module), "Cornac's VBPR has changed"
            exec(compile(source, module.__file__, "exec"), module.__dict__)
        split, n = shape.split, np.arange(len(shape.split.item_ids))
        x = (
            np.asarray(shape.features.matrix[:], np.float32)
            if raw
            else unit_rows(shape.features.standardised(n).numpy())
        )
        data = cornac_set(split, split.train, x)
        held: list[list[torch.Tensor]] = []

        class Adam(torch.optim.Adam):  # the parameters are local to `fit`; their optimiser knows them
            def __init__(self, params: list[torch.Tensor], **options: Any) -> None:
                held.append(params)
                super().__init__(params, **options)

        plain, torch.optim.Adam = torch.optim.Adam, Adam
        drawn, epochs, f = 0, data.uij_iter, torch.from_numpy(x)

        def uij_iter(*given: Any, **options: Any) -> Iterator[Any]:
            nonlocal drawn
            if watch.over:
                return
            for batch in epochs(*given, **options):
                yield batch
                drawn += len(batch[0])
                if watch.over:
                    break
            with torch.no_grad():
                b, gu, gi, tu, e, beta = held[0]
                items = torch.cat([gi, f @ e], 1)
                watch.look(torch.cat([gu, tu], 1).numpy(), items.numpy(), (b + (f @ beta).ravel()).numpy())

        data.uij_iter = uij_iter
        model = module.VBPR(k=args.dim, k2=args.dim, n_epochs=args.epochs, verbose=False, seed=0)
        with PeakMemory() as memory:
            watch = Watch(split, args.limit, scores_unseen=True)
            model.fit(data)
        torch.optim.Adam = plain
        evaluation = None
        if len(split.user_ids) <= 5000:
            start = time.perf_counter()
            ranking_eval(model, [AUC()], cornac_set(split, split.train), cornac_set(split, split.test))
            evaluation = time.perf_counter() - start
        return result(watch, drawn, memory.peak, evaluation)

    return run


def cornac_bpr(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
    """Its plain SGD has no state, so it can be fitted ten iterations at a time."""
    from cornac.models import BPR

    data, split, start = cornac_set(shape.split, shape.split.train), shape.split, {}
    with PeakMemory() as memory:
        watch = Watch(split, args.limit, every=10)
        for step in range(20):  # of ten iterations each
            threads = torch.get_num_threads()
            model = BPR("BPR", 64, 10, 0.05, 0.01, num_threads=threads, seed=step, init_params=start).fit(data)
            start = {"U": model.u_factors, "V": model.i_factors, "Bi": model.i_biases}
            watch.look(model.u_factors, model.i_factors, model.i_biases)
            if watch.over:
                break
    return result(watch, len(watch.curve) * 10 * split.train.nnz, memory.peak)


def implicit_bpr(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
    """With the hyper-parameters of our `bpr`, which is this very model."""
    from implicit.cpu.bpr import BayesianPersonalizedRanking
    from implicit.evaluation import ranking_metrics_at_k

    c, split = configure("bpr"), shape.split
    model = BayesianPersonalizedRanking(
        c.factors, c.lr, c.reg_items, iterations=c.epochs, num_threads=torch.get_num_threads(), random_state=0
    )

    def callback(epoch: int, *_: Any) -> None:
        if epoch % 10 == 9:
            watch.look(model.user_factors, model.item_factors)

    with PeakMemory() as memory:
        watch = Watch(split, args.limit, every=10)
        model.fit(split.train, show_progress=False, callback=callback)
    start = time.perf_counter()
    ranking_metrics_at_k(model, split.train, split.test, show_progress=False, num_threads=torch.get_num_threads())
    return result(watch, c.epochs * split.train.nnz, memory.peak, time.perf_counter() - start)


def implicit_als(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
    """With the hyper-parameters of our `als`, which must come out the same."""
    from implicit.cpu.als import AlternatingLeastSquares

    c, split = configure("als"), shape.split
    model = AlternatingLeastSquares(
        c.factors, c.reg_items, c.alpha, iterations=c.epochs, num_threads=torch.get_num_threads(), random_state=0
    )
    with PeakMemory() as memory:
        watch = Watch(split, args.limit)
        model.fit(split.train, show_progress=False)
        watch.look(model.user_factors, model.item_factors)
    return result(watch, 0, memory.peak) | {"epochs": c.epochs}


def irspack_ials(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
    """Feature-aware iALS on the features' leading axes; the best of IRSPACK by validation, and its own time."""
    from irspack.recommenders.ials import IALSRecommender

    c, split = configure("feature-als"), shape.split
    looks, _ = axes(shape.features, len(split.item_ids), 128)
    tried = []
    for alpha0, reg in IRSPACK:
        with PeakMemory() as memory:
            watch = Watch(split, args.limit, scores_unseen=True)
            model = IALSRecommender(
                split.train.astype(np.float64),
                n_components=c.factors,
                alpha0=alpha0,
                reg=reg,
                train_epochs=c.epochs,
                n_threads=torch.get_num_threads(),
                item_features=looks,
                lambda_item_feature=1.0,
            )
            model.learn()
            watch.look(model.get_user_embedding(), model.get_item_embedding())
        tried.append((watch.curve[0][1], len(tried), watch, memory.peak))
    _, _, watch, peak = max(tried)
    return result(watch, 0, peak) | {"epochs": c.epochs}


def fitted(model: str) -> Callable[[Shape, argparse.Namespace], dict[str, Any]]:
    """One of ours as it is by default, in one go."""

    def run(shape: Shape, args: argparse.Namespace) -> dict[str, Any]:
        c = configure(model, widest=len(shape.features.mean))
        with PeakMemory() as memory:
            watch = Watch(shape.split, args.limit)
            factors = fit(shape.split, shape.features if MODELS[model].visual else None, c)
            watch.best = (factors, watch.seconds, c.epochs)
            watch.curve.append((watch.seconds, validation_auc(factors)))
        return result(watch, 0, memory.peak) | {"epochs": c.epochs}

    return run


# ---------------------------------------------------------------------------------------------- the table


def runs(dim: int) -> dict[str, Run]:
    visual = {"dim": dim, "popularity_share": 0.25}
    both = {**visual, "factors": dim}
    return {
        "Cornac VBPR": Run("cornac", cornac_vbpr()),
        "Cornac VBPR, raw features": Run("cornac", cornac_vbpr(raw=True)),
        "Cornac VBPR, mended": Run("cornac", cornac_vbpr(mended=True)),
        "visual": Run("vbpr", ours("visual", **visual), "Cornac VBPR"),
        "visual, one negative each": Run("vbpr", ours("visual", dim=dim, **OWN_NEGATIVES), "Cornac VBPR"),
        "vbpr": Run("vbpr", ours("vbpr", **both), "Cornac VBPR"),
        "vbpr, Cornac's values": Run("vbpr", ours("vbpr", **both, **CORNACS), "Cornac VBPR"),
        "implicit BPR": Run("implicit", implicit_bpr),
        "Cornac BPR": Run("cornac", cornac_bpr),
        "bprmf": Run("vbpr", ours("bprmf"), "implicit BPR"),
        "implicit ALS": Run("implicit", implicit_als),
        "als": Run("vbpr", ours("als"), "implicit ALS"),
        "irspack iALS with features": Run("irspack", irspack_ials),
        "feature-als": Run("vbpr", fitted("feature-als"), "irspack iALS with features"),
        "hybrid": Run("vbpr", fitted("hybrid")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", help="data set, with --features")
    parser.add_argument("--features", type=Path, nargs="+", default=[])
    parser.add_argument("--planted", type=int, nargs=3, metavar=("USERS", "ITEMS", "PAIRS"), help="made data instead")
    parser.add_argument("--feature-dim", type=int, default=1280, help="of made data")
    parser.add_argument("--dim", type=int, default=50, help="K of each part")
    parser.add_argument("--epochs", type=int, default=20, help="of Cornac's VBPR")
    parser.add_argument("--limit", type=float, default=300, help="seconds of training that a peer gets")
    parser.add_argument("--runs", nargs="+", choices=list(runs(1)), default=list(runs(1)))
    parser.add_argument("--peers", type=Path, default=Path("artifacts/peers"), help="folder for peers")
    parser.add_argument("--page", type=Path, help="write the tables between this script's marks in a page")
    parser.add_argument("--child", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        name, folder = args.child
        told = runs(args.dim)[name].run(load(Path(folder)), args)
        (Path(folder) / "told.json").write_text(json.dumps(told))
        return
    for name in {runs(1)[run].whose for run in args.runs} & PEERS.keys():
        if not (args.peers / name / name).exists():
            pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(args.peers / name)]
            subprocess.run([*pip, *PEERS[name]], check=True)
    with tempfile.TemporaryDirectory() as folder:
        heading = f"{save(args, Path(folder))}; {machine()}"
        print(heading, flush=True)
        told: dict[str, dict[str, Any]] = {}
        for name in args.runs:
            told[name] = measured(name, args, Path(folder))
            print(row(name, told, args) | quality(name, told[name]), flush=True)
    speed = table([row(name, told, args) for name in told])
    text = "\n\n".join([heading, speed, table([quality(name, one) for name, one in told.items()]), NOTES])
    if args.page is None:
        print("\n" + text)
    else:
        write_page(args.page, "bench/peers.py", text)


NOTES = """\
Seconds: ours, the whole fit of the default; a peer's, up to its best epoch. A batch of B positives and N shared
negatives forms B x N triplets: positives/s compares what was drawn, with one negative for each. memory: peak above
features and interactions. to AUC: seconds to the same validation AUC, the lower of the two bests, by this row and by
the peer. evaluation: seconds, exact over all items for all metrics by ours; Cornac's own for AUC alone; implicit's own
for its top ten."""


def measured(name: str, args: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """One run in a process of its own."""
    whose = runs(1)[name].whose
    paths = [str((args.peers / whose).resolve())] * (whose in PEERS) + [os.environ.get("PYTHONPATH", "")]
    command = [sys.executable, __file__, "--child", name, str(folder)]
    for option in ("dim", "epochs", "limit"):
        command += [f"--{option}", str(getattr(args, option))]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)}
    subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
    told: dict[str, Any] = json.loads((folder / "told.json").read_text())
    return told


def row(name: str, told: dict[str, dict[str, Any]], args: argparse.Namespace) -> dict[str, object]:
    one, peer = told[name], told.get(runs(args.dim)[name].against)
    cells: dict[str, object] = {
        "run": name,
        "epochs": one["epochs"],
        "seconds": f"{one['seconds']:.1f}",
        "positives/s": f"{one['positives']:,.0f}" if one["positives"] else "-",
        "triplets/s": f"{one['triplets']:,.0f}" if one["triplets"] else "-",
        "memory MB": f"{one['memory']:,.0f}",
        "evaluation s": "-" if one["evaluation"] is None else f"{one['evaluation']:.2f}",
        "best validation AUC": f"{max(auc for _, auc in one['curve']):.4f}",
    }
    ratios = ("positives ratio", "triplets ratio", "to AUC", "time ratio")
    if peer is None:
        return cells | dict.fromkeys(ratios, "")
    target = min(max(auc for _, auc in run["curve"]) for run in (one, peer))
    mine, theirs = (next(s for s, auc in run["curve"] if auc >= target) for run in (one, peer))
    return cells | dict(
        zip(
            ratios,
            (
                f"{one['positives'] / peer['positives']:.1f}" if peer["positives"] else "",
                f"{one['triplets'] / peer['triplets']:,.0f}" if peer["triplets"] else "",
                f"{target:.4f}: {mine:.2f}, {theirs:.2f}",
                f"{theirs / mine:.1f}",
            ),
            strict=True,
        )
    )


def quality(name: str, one: dict[str, Any]) -> dict[str, object]:
    s = one["summary"]
    cells = {part: f"{s[part]['auc']:.4f}" if "auc" in s[part] else "-" for part in ("all", "cold", "unseen")}
    return {"run": name, **cells, **{key: f"{s['all'][key]:.4f}" for key in ("ndcg@10", "recall@20", "hr@10")}}


def save(args: argparse.Namespace, folder: Path) -> str:
    """Write the data once, for every run; returns what it is."""
    if args.planted:
        split, matrix = planted(*args.planted, args.feature_dim)
        known, title = np.ones(len(matrix), bool), "made data with planted tastes"
    elif args.data and args.features:
        data, stores = Dataset.resolve(args.data), [FeatureStore(path) for path in args.features]
        split = prepare(data, stores)
        features = align(stores, split.item_ids)
        matrix, known, title = features.matrix[:], features.known, data.title
    else:
        raise SystemExit("give --data and --features, or --planted")
    np.save(folder / "features.npy", np.asarray(matrix))
    parts = {part: getattr(split, part) for part in ("train", "validation", "test")}
    for part, pairs in parts.items():
        sp.save_npz(folder / f"{part}.npz", pairs)
    np.savez(folder / "split.npz", users=split.user_ids, items=split.item_ids, known=known, rule=split.rule)
    users, items = parts["train"].shape
    return f"{title}: {users:,} users, {items:,} items, {parts['train'].nnz:,} train pairs, D {matrix.shape[1]}"


def load(folder: Path) -> Shape:
    with np.load(folder / "split.npz") as file:
        users, items, known, rule = file["users"], file["items"], file["known"], str(file["rule"])
    parts = (sp.load_npz(folder / f"{part}.npz").tocsr() for part in ("train", "validation", "test"))
    return Shape(Split(users, items, *parts, rule), ItemFeatures.of(np.load(folder / "features.npy"), known))


if __name__ == "__main__":
    main()
