"""ONNX Runtime's int8 reaches every product with a weight, and says what most products are computed in."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from helpers import tiny_model
from transformers import PreTrainedModel

from bertkd.export import exported_size_mb, exporting, open_exported, write_export
from bertkd.export.onnx_graphs import products_by_precision, reads_ranges_at_run_time
from bertkd.students import factorize, prune, share_layers

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


PARTLY = "int8 but for the second feed-forward maps"


@pytest.mark.parametrize(
    ("make", "second_maps", "others"),
    [
        # The last operator of this activation is a product like any other, and a tanh lies before the classifier.
        (lambda: tiny_model(hidden_act="gelu_new"), 2, 12),
        (lambda: factorize(tiny_model(), ffn_rank=4), 2, 16),
        (lambda: prune(tiny_model("distilbert", activation="relu"), [2, 2], [0, 5]), 1, 11),
    ],
)
def test_the_second_feed_forward_maps_and_no_others_are_left_out_of_int8(
    make: Callable[[], PreTrainedModel], second_maps: int, others: int, tmp_path: Path
) -> None:
    folder = write_export(make(), tmp_path, "onnxruntime", PARTLY)
    # Each of two layers has two products without a weight.
    assert products_by_precision(folder) == {"int8": others, "float32": second_maps + 4}


def test_openvino_leaves_out_the_same_products(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import nncf

    left_out: list[str] = []
    scope = nncf.IgnoredScope

    def noted(names: list[str]) -> Any:
        left_out.extend(names)
        return scope(names=names)

    monkeypatch.setattr(nncf, "IgnoredScope", noted)
    batches = [{name: torch.ones(2, 8, dtype=torch.long) for name in ("input_ids", "attention_mask")}]
    model = share_layers(tiny_model(hidden_act="gelu_new"), 1)
    write_export(model, tmp_path, "openvino", PARTLY, calibration=batches, is_accurate=False)
    assert len(set(left_out)) == len(left_out) == 2


def test_a_second_map_that_is_not_in_the_graph_is_told() -> None:
    first, second = np.ones((2, 3)), np.zeros((2, 3))
    assert exporting._left_out([("a", first), ("b", second.T)], [second]) == ["b"]
    with pytest.raises(ValueError, match="Of 2 second feed-forward maps, 1 were found in the exported graph"):
        exporting._left_out([("a", first)], [first, second])


def test_a_graph_of_which_little_is_quantized_is_not_called_int8(tmp_path: Path) -> None:
    operators = ["DynamicQuantizeLinear", "MatMulInteger", "MatMulInteger", "Transpose", *["MatMul"] * 48]
    nodes = [onnx.helper.make_node(operator, ["x"], ["y"]) for operator in operators]
    onnx.save(onnx.helper.make_model(onnx.helper.make_graph(nodes, "graph", [], [])), tmp_path / "model.onnx")

    assert products_by_precision(tmp_path).most_common(1) == [("float32", 48)]
    assert reads_ranges_at_run_time(tmp_path)
