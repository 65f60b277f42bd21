"""The example in the card of an exported folder works, for texts of any length."""

import re
from pathlib import Path
from typing import Any

import torch
from helpers import tiny_model, word_tokenizer

from bertkd.efficiency import TorchRunner
from bertkd.export import write_export
from bertkd.records import ExportResult, write_export_card


def test_the_example_cuts_a_text_that_is_too_long(tmp_path: Path) -> None:
    tokenizer, folder = word_tokenizer(tmp_path), tmp_path / "out"
    write_export(tiny_model(), folder, "openvino", "float32", tokenizer)
    values: dict[str, Any] = {"versions": {}, "settings": {}, "hardware": {}, "metrics": {}, "metrics_before": {}}
    values |= dict.fromkeys(("value", "value_before", "logit_difference", "size_mb", "latency_ms", "p95_ms"), 0.0)
    values |= dict.fromkeys(("command", "commit", "finished", "task", "metric", "method", "attempt"), "x")
    values |= dict.fromkeys(("parameters", "embedding_parameters", "layers", "seed"), 1)
    values |= {"engine": "openvino", "precision": "float32", "runtime_precision": "float32", "attempts": []}
    values |= {"agreement": None, "speedup": None, "speedup_best": None}
    values["conditions"] = {"batch_size": 1, "sequence_length": 128, "threads": 1}
    card = write_export_card(folder, ExportResult(**values)).read_text()

    (block,) = re.findall(r"```python\n(.*?)```", card, re.DOTALL)
    text = "w1 w2 w3 " * 50
    names: dict[str, Any] = {"path": str(folder)}
    exec(compile(block.replace("a sentence", text), "card", "exec"), names)

    batch = tokenizer([text], truncation=True, max_length=40, return_tensors="pt")
    torch.testing.assert_close(names["logits"], TorchRunner(tiny_model())(batch), rtol=1e-3, atol=1e-4)
