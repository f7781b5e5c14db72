"""The same code on the accelerator: run on the GPU where there is one, and on the CPU, whole, where there is none."""

import numpy as np
import pytest
import torch

from conftest import TINY
from oracles import brute_auc, case, ranks_of, scores_of
from vbpr import Dataset, FeatureStore, SplitConfig, VbprError, configure, extract
from vbpr.compute.device import fault, multiplies_bfloat16, pick_device
from vbpr.evaluation import ranks
from vbpr.evaluation.evaluate import evaluate
from vbpr.extraction.engines import Encoder
from vbpr.networks.registry import load_backbone
from vbpr.training.catalogue import align, prepare
from vbpr.training.fit import fit
from vbpr.training.models import MODELS
from vbpr.training.models.bpr import bpr

DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


@pytest.mark.parametrize("precision", ["exact", "fast"])
def test_features_equal_eager_float32(precision):
    backbone = load_backbone("test_efficientnet", random_weights=True)
    pixels = np.random.default_rng(0).integers(0, 256, (21, 160, 160, 3), dtype=np.uint8)
    found = Encoder(backbone, DEVICE, precision, batch=4)(pixels)
    mean, std = (torch.tensor(v).view(1, 3, 1, 1) for v in (backbone.preprocessing.mean, backbone.preprocessing.std))
    assert next(backbone.module.parameters()).device.type == "cpu"  # the encoder has a copy of its own
    with torch.inference_mode():
        expected = backbone.module((torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - mean) / std).numpy()
    assert np.linalg.norm(found - expected) <= (1e-3 if precision == "exact" else 0.05) * np.linalg.norm(expected)


@pytest.mark.parametrize(
    ("told", "expected"),
    [({"avx512_bf16": True}, True), ({"avx2": True}, False), ({"bf16": True}, True), ({"neon": True}, False)],
)
def test_a_cpu_without_units_for_bfloat16_is_known(monkeypatch, told, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: told)
    assert multiplies_bfloat16(torch.device("cpu")) is expected


def test_weights_are_drawn_without_touching_a_gpu(monkeypatch):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    expected = load_backbone(TINY, random_weights=True).digest
    assert torch.equal(torch.get_rng_state(), state)

    def touched(*_):
        raise AssertionError("a GPU was touched")

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    for name in ("get_rng_state", "set_rng_state", "manual_seed_all"):
        monkeypatch.setattr(torch.cuda, name, touched)
    assert load_backbone(TINY, random_weights=True).digest == expected


@pytest.mark.parametrize(
    "name", ["cuda:200", "cuda:256", "cuda:-1", "cuda:07", "cuda:٣", "mps", "meta", "gpu", "cuda:"]
)
def test_a_device_that_is_none_is_refused(name):
    with pytest.raises(VbprError, match=f"--device {name} is not known; choose auto, cpu, cuda or cuda:N"):
        pick_device(name)


def test_a_gpu_that_torch_cannot_use_is_none(monkeypatch):
    zeros = torch.zeros

    def none(*shape, device="cpu"):
        if device != "cpu":
            raise RuntimeError("CUDA error: no kernel image is available for execution on the device\nCompile with")
        return zeros(*shape)

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch, "zeros", none)
    fault.cache_clear()
    try:
        assert pick_device("auto").type == "cpu"
        with pytest.raises(
            VbprError, match=r"cannot compute there \(CUDA error: no kernel image .* device\); choose cpu"
        ):
            pick_device("cuda")
    finally:
        fault.cache_clear()


@pytest.mark.parametrize("call", ["evaluate", "fit"])
def test_float32_stays_whole_in_training_and_evaluation(board, board_features, monkeypatch, call):
    seen, matmul = [], torch.backends.cuda.matmul
    module = {"evaluate": ranks, "fit": bpr}[call]
    name = {"evaluate": "single_threaded_ops", "fit": "make_inputs"}[call]
    real = getattr(module, name)

    def noted(*given, **how):
        seen.append(matmul.fp32_precision)
        return real(*given, **how)

    monkeypatch.setattr(module, name, noted)
    before = matmul.fp32_precision
    try:
        matmul.fp32_precision = "tf32"
        stores = [FeatureStore(board_features)]
        split = prepare(Dataset.resolve(board), stores, config=SplitConfig("random"))
        evaluate(
            fit(split, align(stores, split.item_ids), configure("visual", dim=8, device="cpu", epochs=1)), device="cpu"
        )
        assert seen and set(seen) == {"ieee"} and matmul.fp32_precision == "tf32"
    finally:
        matmul.fp32_precision = before


def test_an_extraction_resumes_to_the_same_rows(catalogue, tmp_path):
    options = {"random_weights": True, "device": DEVICE, "batch": 4}
    folder = catalogue()
    whole = extract(Dataset.resolve(folder), TINY, tmp_path / "whole.h5", **options)
    hidden = next((folder / "images").glob("*/red-04.png"))
    hidden.rename(tmp_path / "hidden.png")
    part = extract(Dataset.resolve(folder), TINY, tmp_path / "part.h5", **options)
    (tmp_path / "hidden.png").rename(hidden)
    again = extract(Dataset.resolve(folder), TINY, tmp_path / "part.h5", **options)
    assert (whole.written, part.written, again.written) == (22, 21, 1)
    a, b = (np.asarray(FeatureStore(tmp_path / f"{n}.h5").features, np.float32) for n in ("whole", "part"))
    assert np.linalg.norm(a - b) <= 1e-3 * np.linalg.norm(a)


@pytest.mark.parametrize("strict", [False, True])
def test_auc_equals_brute_force_with_ties(strict):
    factors, train, held = case(3)
    ranks = ranks_of([f.to(DEVICE) for f in factors], train, held)
    auc = ranks.auc_strict if strict else ranks.auc
    users = np.unique(ranks.users)
    found = np.array([auc[ranks.users == u].mean() for u in users])
    np.testing.assert_allclose(found, brute_auc(scores_of(factors), train, held, strict), atol=1e-12)


@pytest.mark.parametrize(
    ("model", "values"),
    [
        (model, values)
        for model in ("visual", "vbpr", "bprmf")
        for values in ({}, {"shared_negatives": 0}, {"loss": "softmax"}, {"negatives": "in-batch"})
    ]
    + [("hybrid", {}), ("hybrid", {"popularity_share": 0.5})],
)
def test_a_model_is_fitted_twice_to_the_same_bits(board, board_features, model, values):
    stores = [FeatureStore(board_features)]
    split = prepare(Dataset.resolve(board), stores, config=SplitConfig("random"))
    features = align(stores, split.item_ids) if MODELS[model].visual else None
    sizes = {"dim": 8, "factors": 4} if MODELS[model].visual else {"factors": 4}
    config = configure(model, device=DEVICE, epochs=2, batch=64, **sizes | values)
    one, two = (fit(split, features, config) for _ in range(2))
    assert np.array_equal(one.users, two.users) and np.array_equal(one.items, two.items)
    assert np.isfinite(one.items).all()
    on, off = (evaluate(one, device=device).summary()["all"]["auc"] for device in (DEVICE, "cpu"))
    assert abs(on - off) < 1e-3  # the same scores, rounded elsewhere
