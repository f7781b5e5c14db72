#!/bin/sh
# OpenVINO reads an ONNX Resize with antialias=1 and resizes without antialiasing.
#
# Guess:   a valid ONNX model gives the same numbers in ONNX Runtime and OpenVINO, or OpenVINO refuses the attribute.
# Truth:   without antialias the two agree to 1e-6. With antialias=1 ONNX Runtime smooths, while OpenVINO's output is
#          the one without, to the last bit; linear and cubic alike. No error, no warning.
# Matters: image preprocessing put inside the model (PIL and torchvision antialias when they shrink) is silently
#          another preprocessing: features of one catalogue made by both engines do not belong together.
# Remedy:  resize outside the model, or compare the engines on one image of fine texture before trusting them.
# Source:  https://github.com/openvinotoolkit/openvino/issues/35893 (cubic, 2026.1; so here, and linear too)
set -eu
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
trap 'exit 1' INT TERM
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install -q --disable-pip-version-check openvino==2026.4.1 onnxruntime==1.32.0 onnx==1.23.2 numpy==2.4.6
cd "$dir"
export OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1
"$dir/venv/bin/python" - <<'PYTHON'
import sys
from importlib.metadata import version

for package in "openvino onnxruntime onnx numpy".split():
    print(package, version(package))


def still(ok, what):
    print(("as described: " if ok else "NOT AS DESCRIBED ANY MORE: ") + what)
    if not ok:
        sys.exit(1)


import numpy as np
import onnx
import onnxruntime
import openvino
from onnx import TensorProto, helper

image = np.random.default_rng(0).random((1, 1, 512, 512), np.float32)


def outputs(mode, antialias):
    node = helper.make_node("Resize", ["x", "", "", "size"], ["y"], mode=mode, antialias=antialias)
    graph = helper.make_graph(
        [node],
        "resize",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 1, 512, 512])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 1, 64, 64])],
        [helper.make_tensor("size", TensorProto.INT64, [4], [1, 1, 64, 64])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, "model.onnx")
    ort = onnxruntime.InferenceSession("model.onnx", providers=["CPUExecutionProvider"]).run(None, {"x": image})[0]
    compiled = openvino.compile_model("model.onnx", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    return ort, compiled([image])[0]


for mode in ("linear", "cubic"):
    (ort, ov), (ort_smooth, ov_smooth) = outputs(mode, 0), outputs(mode, 1)
    print(f"{mode}: antialias=0 largest difference {np.abs(ort - ov).max():.1e}, std {ort.std():.3f} and {ov.std():.3f}")
    print(f"{mode}: antialias=1 largest difference {np.abs(ort_smooth - ov_smooth).max():.3f}, "
          f"std {ort_smooth.std():.3f} and {ov_smooth.std():.3f}")
    still(np.abs(ort - ov).max() < 1e-4, f"{mode}: without antialias the engines agree")
    still(np.array_equal(ov, ov_smooth), f"{mode}: OpenVINO gives the same with and without antialias")
    still(np.abs(ort_smooth - ov_smooth).max() > 0.2, f"{mode}: with antialias the engines differ by more than 0.2")
PYTHON
