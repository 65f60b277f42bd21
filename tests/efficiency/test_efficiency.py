"""What a model costs: parameters, operations, size on disk and latency, counted and measured."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import BertConfig, BertForMaskedLM, BertForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from bertkd.efficiency import TorchRunner, count_flops, count_parameters, measure_latency, model_size_mb


def tiny_config(**changes: Any) -> BertConfig:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 64}
    return BertConfig(vocab_size=100, max_position_embeddings=64, **(sizes | changes))


def test_tied_weights_are_counted_once_and_embeddings_apart() -> None:
    count = count_parameters(BertForMaskedLM(tiny_config()))
    embeddings = 100 * 32 + 64 * 32 + 2 * 32
    layer = 4 * (32 * 32 + 32) + (32 * 64 + 64) + (64 * 32 + 32) + 2 * 64
    head = (32 * 32 + 32) + 64 + 100  # transform, its norm, and the output's bias; its weight is the embedding
    assert count.embeddings == embeddings
    assert count.total == embeddings + 64 + layer + head
    assert count.encoder == count.total - embeddings


def test_size_is_that_of_the_safetensors_files(tmp_path: Path) -> None:
    (tmp_path / "model-00001-of-00002.safetensors").write_bytes(bytes(1_500_000))
    (tmp_path / "model-00002-of-00002.safetensors").write_bytes(bytes(500_000))
    (tmp_path / "optimizer.pt").write_bytes(bytes(1000))
    assert model_size_mb(tmp_path) == 2.0
    with pytest.raises(FileNotFoundError, match=r"no \*\.safetensors in .*save_pretrained"):
        model_size_mb(tmp_path / "empty")


def test_size_of_an_old_folder_is_that_of_pytorchs_file(tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").write_bytes(bytes(2_000_000))
    (tmp_path / "training_args.bin").write_bytes(bytes(1000))
    assert model_size_mb(tmp_path) == 2.0


class Sleeper(torch.nn.Module):
    """A model of known latency that notes when it is called."""

    def __init__(self, name: str, seconds: float, calls: list[str]) -> None:
        super().__init__()
        self.name, self.seconds, self.calls = name, seconds, calls
        self.table = torch.nn.Embedding(10, 1)

    def get_input_embeddings(self) -> torch.nn.Embedding:
        return self.table

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        assert input_ids.shape == attention_mask.shape == (2, 7)
        assert int(input_ids.max()) < 10
        assert not self.training
        assert torch.is_inference_mode_enabled()
        self.calls.append(self.name)
        time.sleep(self.seconds)
        return SequenceClassifierOutput(logits=torch.zeros(2, 2))


def test_latency_of_a_known_sleep_and_models_interleaved() -> None:
    calls: list[str] = []
    models = {"slow": Sleeper("slow", 0.02, calls), "fast": Sleeper("fast", 0.005, calls)}
    threads = torch.get_num_threads()
    latency = measure_latency(models, batch_size=2, sequence_length=7, repeats=5, warmup=1, threads=1)

    # The first pass of each turn is not counted.
    assert calls == ["slow", "slow", "fast", "fast"] * 6
    assert 20 <= latency["slow"].p50_ms <= latency["slow"].p95_ms
    assert latency["slow"].throughput == pytest.approx(2000 / latency["slow"].p50_ms)
    assert latency["slow"].speedup == 1.0
    assert latency["fast"].speedup == pytest.approx(latency["slow"].p50_ms / latency["fast"].p50_ms)
    assert latency["fast"].speedup > 1.5
    assert all(model.training for model in models.values())
    assert torch.get_num_threads() == threads


def test_every_device_that_computes_on_after_a_call_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[torch.device] = []
    monkeypatch.setattr(torch.accelerator, "synchronize", waited.append)
    runner = TorchRunner(Sleeper("model", 0, []))
    inputs = {name: torch.ones(2, 7, dtype=torch.long) for name in ("input_ids", "attention_mask")}
    for device, count in (("cpu", 0), ("cuda", 1), ("mps", 2)):
        runner.device = device
        runner.model.eval()
        runner(inputs)
        assert len(waited) == count


def test_latency_records_precision_attention_and_conditions() -> None:
    model = BertForSequenceClassification(tiny_config(attn_implementation="eager")).to(torch.bfloat16)
    latency = measure_latency({"model": model}, sequence_length=8, repeats=2, warmup=0)["model"]
    assert (latency.precision, latency.attention, latency.device) == ("bfloat16", "eager", "cpu")
    assert (latency.engine, latency.padding) == ("pytorch", "none")
    assert (latency.batch_size, latency.sequence_length, latency.repeats) == (1, 8, 2)


def test_a_sequence_longer_than_the_positions_is_refused() -> None:
    model = BertForSequenceClassification(tiny_config())
    with pytest.raises(ValueError, match="sequence_length is 128, but student has 64 positions"):
        measure_latency({"student": model})
    with pytest.raises(ValueError, match="at least one model"):
        measure_latency({})


def test_flops_are_those_of_the_papers() -> None:
    config = BertConfig(vocab_size=100)
    model = BertForSequenceClassification(config)
    assert count_flops(model) / 1e9 == pytest.approx(22.35, abs=0.01)
    assert model.config._attn_implementation == "sdpa" and model.training
    with pytest.raises(ValueError, match="sequence_length is 600"):
        count_flops(model, sequence_length=600)
