"""OpenVINO graphs rewritten: the features that torch gives, sooner, and no operation that OpenVINO fails at."""

import sys
from typing import Any

import numpy as np
import torch

from ...base.arrays import Array
from ...compute.device import cpu_has

# OpenVINO reports to its maker, under an identity in the home folder, unless this package of its cannot be imported.
sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
# What OpenVINO computes in bfloat16 when it may; all else follows.
PRODUCTS = ("Convolution", "GroupConvolution", "ConvolutionBackpropData", "GroupConvolutionBackpropData", "MatMul")


def compile_graph(model: Any, fast: bool, options: dict[str, Any]) -> Any:
    """The network compiled for the CPU, in bfloat16 (`fast`) or to float32's precision; `model` changes.

    Args:
        options: of OpenVINO's, beside the precision.
    """
    import openvino as ov

    split_group_norms(model)
    core, moved = ov.Core(), pool_later(model)
    if not fast and tiles():
        halves = in_halves(model)
        if halves is not None:
            compiled = core.compile_model(halves, "CPU", {"INFERENCE_PRECISION_HINT": "bf16", **options})
            if in_float32(compiled, but=moved):
                return compiled
    return core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "bf16" if fast else "f32", **options})


def tiles() -> bool:
    """Whether this CPU multiplies bfloat16 in tiles (AMX)."""
    return cpu_has("amx_bf16")


def split_group_norms(model: Any) -> int:
    """Write group normalisation as simpler operations; returns how many.

    (x - mean) / deviation of each group of channels is that of a row, once every group is one; a scale and a shift for
    each channel follow. OpenVINO 2026.4.1 ends the process when it compiles some networks (ResNets) in which group
    normalisation stands beside a sum of two branches; the simpler operations it also runs sooner.
    """
    import openvino.opset12 as ops

    norms = [n for n in model.get_ordered_ops() if n.get_type_name() == "GroupNormalization"]
    for norm in norms:
        x, scale, shift = (norm.input_value(n) for n in range(3))
        form, shape = norm.get_attributes(), list(x.shape)
        rows = ops.reshape(x, np.array([shape[0], form["num_groups"], -1]), False)
        rows = ops.mvn(rows, ops.constant(np.array([2])), True, form["epsilon"], "inside_sqrt")
        of_channels = np.array([1, shape[1], *[1] * (len(shape) - 2)])
        scaled = ops.multiply(ops.reshape(rows, np.array(shape), False), ops.reshape(scale, of_channels, False))
        norm.output(0).replace(ops.add(scaled, ops.reshape(shift, of_channels, False)).output(0))
    return len(norms)


def pool_later(model: Any) -> int:
    """Take average pools that keep a map's size, before 1 x 1 convolutions to fewer channels, behind these; how many.

    Both are linear, and one works on places, the other on channels: the order only changes how much there is to pool.
    """
    import openvino.opset8 as ops

    moved = 0
    for convolution in model.get_ordered_ops():
        if convolution.get_type_name() != "Convolution":
            continue
        pool, (outputs, inputs, *kernel) = convolution.input_value(0).get_node(), convolution.input_value(1).shape
        form = convolution.get_attributes()
        plain = set(kernel) == set(form["strides"]) == {1} and not any(form["pads_begin"] + form["pads_end"])
        if not plain or outputs >= inputs or pool.get_type_name() != "AvgPool":
            continue
        window = pool.get_attributes()
        alone = len(pool.output(0).get_target_inputs()) == 1 and pool.input_value(0).shape == pool.output(0).shape
        if window["exclude-pad"] or not alone:  # leaving the padding out is not linear in what the convolution gives
            continue
        first = ops.convolution(pool.input_value(0), convolution.input_value(1), [1, 1], [0, 0], [0, 0], [1, 1])
        pads = (window["pads_begin"], window["pads_end"], window["kernel"], False, "floor", window["auto_pad"])
        convolution.output(0).replace(ops.avg_pool(first, window["strides"], *pads).output(0))
        moved += 1
    return moved


def in_halves(model: Any) -> Any | None:
    """A copy of the network in bfloat16 products that lose next to nothing, or None where it would not be faster.

    With x = x1 + x2 and w = w1 + w2, each half a bfloat16, x w = x1 w1 + x1 w2 + x2 w1 to 2^-16: one convolution of
    three times the channels, whose sums are float32. Units for bfloat16 do it in half the time of one in float32.
    Compiled for bfloat16, OpenVINO keeps in float32 what leads to an output and to no further product: hence an output
    for one number of each x2. `in_float32` tells whether it did.
    """
    import openvino.opset13 as ops

    model = model.clone()
    products = [node for node in model.get_ordered_ops() if node.get_type_name() in PRODUCTS]
    names = {node.get_type_name() for node in products}
    if names != {"Convolution"} or not all(
        node.input_value(1).get_node().get_type_name() == "Constant" for node in products
    ):
        return None
    inputs = {place(node.input_value(0)): int(np.prod(node.input_value(0).shape)) for node in products}
    # a convolution's products: those of each output number, input channels x kernel
    work = sum(int(np.prod(node.output(0).shape)) * int(np.prod(node.input_value(1).shape[1:])) for node in products)
    if work < WORTH * sum(inputs.values()):
        return None
    halves: dict[tuple[str, int], Any] = {}
    for convolution in products:
        x, w = convolution.input_value(0), convolution.input_value(1).get_node().get_data()
        if place(x) not in halves:
            x1 = ops.convert(x, "bf16")
            rest = ops.subtract(x, ops.convert(x1, "f32"))
            model.add_results([ops.result(ops.slice(rest, [0] * 4, [1] * 4, [1] * 4, [0, 1, 2, 3]))])
            halves[place(x)] = ops.convert(ops.concat([x1, x1, ops.convert(rest, "bf16")], 1), "f32")
        form = convolution.get_attributes()
        again = ops.convolution(
            halves[place(x)],
            ops.constant(three_parts(w), shared_memory=True),
            *(form[name] for name in ("strides", "pads_begin", "pads_end", "dilations", "auto_pad")),
        )
        convolution.output(0).replace(again.output(0))
    return model


WORTH = 600  # products for each number that a convolution reads: below, splitting it costs what it saves


def place(output: Any) -> tuple[str, int]:
    return output.get_node().get_name(), output.get_index()


def three_parts(w: Array) -> Array:
    """(outputs, inputs, ...) weights as w1, w2, w1 along the inputs: float32 numbers that bfloat16 has."""
    weights = torch.tensor(w, dtype=torch.float32)
    parts = np.empty((w.shape[0], 3 * w.shape[1], *w.shape[2:]), np.float32)
    first, second, third = torch.from_numpy(parts).chunk(3, 1)
    first.copy_(weights.bfloat16())
    second.copy_((weights - first).bfloat16())
    third.copy_(first)
    return parts


def in_float32(compiled: Any, but: int = 0) -> bool:
    """Whether all convolutions run on units for bfloat16, and all `but` a few give their sums in float32."""
    layers = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    convolutions = [info for info in layers if info["layerType"].astype(str) == "Convolution"]
    wide = sum(info["outputPrecisions"].astype(str) == "f32" for info in convolutions)
    return wide >= len(convolutions) - but and all(
        "_amx_" in info["primitiveType"].astype(str) for info in convolutions
    )


__all__ = ["compile_graph", "in_float32", "in_halves", "pool_later", "split_group_norms", "tiles"]
