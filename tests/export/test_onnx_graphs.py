"""ONNX Runtime's int8 reaches every product with a weight, and says what most products are computed in."""

from pathlib import Path

import onnx
from helpers import tiny_model

from bertkd.export import exported_size_mb, open_exported, write_export
from bertkd.export.onnx_graphs import products_by_precision, reads_ranges_at_run_time
from bertkd.students import share_layers

LAYERS = 3


def test_int8_quantizes_the_products_of_layers_that_share_their_weights(tmp_path: Path) -> None:
    # Weights this large are not folded by the exporter where several layers use them.
    model = share_layers(tiny_model(layers=LAYERS, hidden=256, num_attention_heads=4, intermediate_size=512), 1)
    folder = write_export(model, tmp_path, "onnxruntime", "int8")

    # Six products with weights per layer, the pooler and the head; the two of the attention itself have none.
    assert products_by_precision(folder) == {"int8": 6 * LAYERS + 2, "float32": 2 * LAYERS}
    runner = open_exported(folder, threads=1)
    assert runner.precision == "int8" and getattr(runner, "depends_on_batch", False)

    # Each shared weight is stored once, with one byte for a number.
    weights = sum(parameter.numel() for name, parameter in model.named_parameters() if "layer" in name)
    assert exported_size_mb(folder) < (1.2 * weights + 4 * 256 * 400) / 1e6


def test_a_graph_of_which_little_is_quantized_is_not_called_int8(tmp_path: Path) -> None:
    operators = ["DynamicQuantizeLinear", "MatMulInteger", "MatMulInteger", "Transpose", *["MatMul"] * 48]
    nodes = [onnx.helper.make_node(operator, ["x"], ["y"]) for operator in operators]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], [])), tmp_path / "model.onnx")

    assert products_by_precision(tmp_path).most_common(1) == [("float32", 48)]
    assert reads_ranges_at_run_time(tmp_path)
