"""Prepares ONNX graphs for their quantization, and reads what they compute in."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["fold_transposed_weights", "products_by_precision", "reads_ranges_at_run_time"]

# A product in int8 is one of these operators; one in another data type is one of the others.
INTEGER_PRODUCTS = {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm"}
FLOAT_PRODUCTS = {"MatMul", "Gemm", "FusedMatMul", "Attention", "MultiHeadAttention"}
# ONNX Runtime writes these for activations whose ranges it reads from each batch.
RANGE_READERS = {"DynamicQuantizeLinear", "DynamicQuantizeMatMul"}


def fold_transposed_weights(model: Any) -> None:
    """Replaces the transposed weights of a graph by weights that lie as the products read them.

    An exporter folds a Transpose of a weight that is used once. Layers that share their weights use it several times,
    and then quantizers find no weight in front of the product, and leave it in float32 without a word.

    Args:
        model: an `onnx_ir.Model`, which is changed.
    """
    import onnx_ir

    graph = model.graph
    folded: dict[tuple[str, tuple[int, ...]], Any] = {}
    for node in list(graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or not weight.is_initializer():
            continue

        axes = node.attributes["perm"].value if "perm" in node.attributes else range(len(weight.shape))[::-1]
        key = (weight.name, tuple(axes))
        # Layers that share a weight share its transpose too, or the file would grow.
        if key not in folded:
            transposed = np.ascontiguousarray(weight.const_value.numpy().transpose(key[1]))
            name = f"{weight.name}_transposed_{len(folded)}"
            folded[key] = onnx_ir.Value(
                name=name,
                shape=onnx_ir.Shape(transposed.shape),
                type=weight.type,
                const_value=onnx_ir.tensor(transposed),
            )
            graph.register_initializer(folded[key])

        node.outputs[0].replace_all_uses_with(folded[key])
        graph.remove(node, safe=True)

    for weight in list(graph.initializers.values()):
        if not weight.uses() and not weight.is_graph_output():
            del graph.initializers[weight.name]


def products_by_precision(folder: str | Path) -> Counter[str]:
    """Counts the matrix products of an ONNX file by what they are computed in, "int8" or "float32"."""
    counts: Counter[str] = Counter()
    for operator in _operators(folder):
        if operator in INTEGER_PRODUCTS:
            counts["int8"] += 1
        elif operator in FLOAT_PRODUCTS:
            counts["float32"] += 1
    return counts


def reads_ranges_at_run_time(folder: str | Path) -> bool:
    """Says whether an ONNX file quantizes activations by the range of the batch that it gets."""
    return any(operator in RANGE_READERS for operator in _operators(folder))


def _operators(folder: str | Path) -> list[str]:
    import onnx

    graph = onnx.load(str(next(Path(folder).glob("*.onnx"))), load_external_data=False).graph
    return [node.op_type for node in graph.node]
