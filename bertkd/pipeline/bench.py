"""Measures models side by side, in every engine and precision that is there."""

import itertools
import os
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel

from bertkd.atomic import read_json
from bertkd.efficiency import PRESETS, check_device, count_flops, count_parameters, measure_latency
from bertkd.export import exported_size_mb, quantization_schemes, random_batches, runs_in, write_export
from bertkd.export.checks import check_length
from bertkd.export.engines import MANIFEST
from bertkd.models.loading import TOKENIZER_FILES, load_tokenizer
from bertkd.pipeline.models import load_model
from bertkd.pipeline.peak_memory import MeasuredModel
from bertkd.records import markdown_table
from bertkd.records.tables import machine_label

__all__ = ["Benchmark", "compared_rows", "conditions", "page", "read_benchmark", "shown_rows"]

SCHEMA = 1
NOT_MEASURED = "PyTorch's int8 is measured on a GPU with torchao, and ONNX Runtime has no bfloat16 here"
GPU_MEMORY = ", and on a GPU what PyTorch takes of its memory"
EAGER = "pytorch float32 (eager)"
AS_EXPORTED = "as exported"
# What a row needs to be compared with another, and the conditions that both should share.
CONDITIONS = ("batch_size", "sequence_length", "threads", "precision", "device", "attention")
COMPARED = ("model", "way", "p50_ms", "speedup", *CONDITIONS)


@dataclass(frozen=True)
class Benchmark:
    """Which models are measured, and how.

    Attributes:
        models: names of shapes in `PRESETS`, folders of models, or folders of exports; the first is the baseline.
        engines, precisions: in which every model is measured; an export in its own alone.
        batch_size, sequence_length: rows and tokens of a pass; none is padding.
        threads: of the CPU.
        repeats, warmup: measured passes of each model, after some that do not count.
        device: where PyTorch runs; the other engines run on the CPU.

    Raises:
        ValueError: a model is no folder and no shape, or is there twice; nothing would be measured.
    """

    models: Sequence[str]
    engines: Sequence[str]
    precisions: Sequence[str]
    batch_size: int
    sequence_length: int
    threads: int
    repeats: int
    warmup: int
    device: str

    def __post_init__(self) -> None:
        check_device(self.device)

        for name in self.models:
            is_folder = (Path(name) / "config.json").is_file() or (Path(name) / MANIFEST).is_file()
            if name in PRESETS and is_folder:
                raise ValueError(f"{name} is a shape, and a folder here: write ./{name} for the folder.")
            if name not in PRESETS and not is_folder:
                raise ValueError(f"{name} is no model's folder, nor one of the shapes {', '.join(PRESETS)}.")
            if list(self.models).count(name) > 1:
                raise ValueError(f"{name} is there twice: name each model once.")

        has_own_engines = any((Path(name) / MANIFEST).is_file() for name in self.models)
        if not self._combinations() and not has_own_engines:
            raise ValueError(
                f"{', '.join(self.engines)} on {self.device} is not measured in {', '.join(self.precisions)} "
                f"({NOT_MEASURED}): name another one with --engines or --precisions."
            )

    def _combinations(self) -> list[tuple[str, str]]:
        """Every engine with every precision that is worth measuring in it."""
        return [pair for pair in self._asked() if runs_in(*pair, self.device)]

    def _asked(self) -> list[tuple[str, str]]:
        """Every engine with every precision."""
        return list(itertools.product(dict.fromkeys(self.engines), dict.fromkeys(self.precisions)))

    def run(self) -> list[dict[str, Any]]:
        """One row per model, engine and precision; the first is the first model in eager float32 PyTorch."""
        for engine, precision in self._asked():
            if not runs_in(engine, precision, self.device):
                print(f"not measured: {engine} {precision} ({NOT_MEASURED}).")
        with tempfile.TemporaryDirectory() as work:
            return self._measure(self._write_models(Path(work)))

    def _write_models(self, work: Path) -> list[dict[str, Any]]:
        """Every model in every engine and precision, as folders, with what does not depend on the engine."""
        described: list[dict[str, Any]] = []
        base_names = [Path(name).name for name in self.models]

        for name in self.models:
            # Folders of one name are told apart by their paths.
            is_ambiguous = base_names.count(Path(name).name) > 1
            title = name if name in PRESETS or is_ambiguous else Path(name).name
            if (Path(name) / MANIFEST).is_file():
                described.append({"model": title, "way": AS_EXPORTED, "folder": Path(name)})
                continue

            model, tokenizer = _load(name)
            check_length(name, model.config, self.sequence_length)
            facts = self._facts(title, name, model)
            # The first model is also measured as papers do it, whatever engines are asked for.
            if not described:
                folder = write_export(model, work / "eager", "pytorch", "float32", tokenizer)
                described.append(facts | {"way": EAGER, "folder": folder})
            for engine, precision in self._combinations():
                print(f"exporting {title}: {engine} {precision}", flush=True)
                scheme = quantization_schemes(engine, precision)[0]
                folder = work / str(len(described))
                write_export(model, folder, engine, scheme, tokenizer, random_batches(model))
                described.append(facts | {"way": f"{engine} {precision}", "folder": folder})
        return described

    def _facts(self, title: str, name: str, model: PreTrainedModel) -> dict[str, Any]:
        """What a model costs, whatever runs it."""
        size, preset = count_parameters(model), PRESETS.get(name)
        return {
            "model": title,
            "parameters": size.total,
            "embedding_parameters": size.embeddings,
            "gflops": count_flops(model, self.batch_size, self.sequence_length) / 1e9,
            "paper_speedup": preset.speedup if preset else None,
            "paper": preset.source if preset else "",
        }

    def _measure(self, described: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """All models in turn: time first, then the memory of each."""
        models: dict[str, MeasuredModel] = {}
        for facts in described:
            models[f"{facts['model']}, {facts['way']}"] = self._measured_model(facts)

        runners = {name: model.open() for name, model in models.items()}
        settings = (self.batch_size, self.sequence_length, self.repeats, self.warmup)
        latency = measure_latency(runners, *settings, threads=self.threads)

        # Time is measured by now, so several processes do no harm.
        with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:
            memory = list(pool.map(MeasuredModel.peak_memory_mb, models.values()))

        rows = []
        for facts, timing, peak in zip(described, latency.values(), memory, strict=True):
            row = {name: value for name, value in facts.items() if name != "folder"}
            row["size_mb"] = exported_size_mb(facts["folder"])
            row["peak_memory_mb"] = peak
            row["warmup"] = self.warmup
            rows.append({**row, **asdict(timing)})
        return rows

    def _measured_model(self, facts: dict[str, Any]) -> MeasuredModel:
        return MeasuredModel(
            folder=str(facts["folder"]),
            is_eager=facts["way"] == EAGER,
            device=self.device,
            threads=self.threads,
            batch_size=self.batch_size,
            sequence_length=self.sequence_length,
        )


def _load(name: str) -> tuple[PreTrainedModel, Any]:
    """A shape with random weights, or the model and the tokenizer in a folder."""
    if name in PRESETS:
        return PRESETS[name].make(), None
    # What a model costs depends neither on its tokenizer nor on whether its head is trained.
    has_tokenizer = any((Path(name) / file).is_file() for file in TOKENIZER_FILES)
    return load_model(name, needs_head=False).eval(), load_tokenizer(name) if has_tokenizer else None


def read_benchmark(path: str) -> dict[str, Any]:
    """The content of an earlier bench.json.

    Raises:
        ValueError: the file is none, or one of another schema.
    """
    content = read_json(path)
    rows: Any = content.get("rows") if isinstance(content, dict) else None
    if not isinstance(rows, list):
        raise ValueError(f"{path} is no bench.json of this command: it has no rows of measured models.")

    if content.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {content.get('schema')}; this version reads {SCHEMA}.")
    for row in rows:
        missing = [name for name in COMPARED if not isinstance(row, dict) or name not in row]
        if missing:
            raise ValueError(f"{path} is no bench.json of this command: a row has no {', '.join(missing)}.")
    return dict(content)


def shown_rows(rows: Sequence[dict[str, Any]]) -> list[dict[str, str]]:
    """The rows for people: speed-ups over the baseline in eager float32, and over it in its fastest engine."""
    fastest = min(row["p50_ms"] for row in rows if row["model"] == rows[0]["model"])
    has_devices = len({row["device"] for row in rows}) > 1

    shown = []
    for row in rows:
        paper = row.get("paper_speedup")
        knows_size = "parameters" in row
        shown.append(
            {
                "model": row["model"],
                "engine": row["way"],
                **({"device": row["device"]} if has_devices else {}),
                "computes in": row["precision"],
                "parameters": f"{row['parameters'] / 1e6:.1f}M" if knows_size else "",
                "in embeddings": f"{row['embedding_parameters'] / 1e6:.1f}M" if knows_size else "",
                "size": f"{row['size_mb']:.1f} MB",
                "GFLOPs": f"{row['gflops']:.2f}" if knows_size else "",
                "memory": f"{row['peak_memory_mb']:.0f} MB",
                "p50": f"{row['p50_ms']:.1f} ms",
                "p95": f"{row['p95_ms']:.1f} ms",
                "rows/s": f"{row['throughput']:.1f}",
                "speed-up": f"{row['speedup']:.2f}x",
                "over the best": f"{fastest / row['p50_ms']:.2f}x",
                "in the paper": "" if paper is None else f"{paper:.2f}x",
            }
        )
    return shown


def conditions(rows: Sequence[dict[str, Any]]) -> str:
    """What a reader needs to know of the table."""
    first = rows[0]
    text = (
        f"Batch {first['batch_size']}, {first['sequence_length']} tokens, no padding, {first['threads']} threads, "
        f"{first['repeats']} repeats in turn after {first['warmup']} that do not count. Speed-ups are over the first "
        f"row, and over {first['model']} in its fastest engine. Memory is what a process of its own grows by"
        f"{GPU_MEMORY if any(row['device'] != 'cpu' for row in rows) else ''}."
    )
    sources = dict.fromkeys(row["paper"] for row in rows if row.get("paper"))
    return f"{text}\n\nPapers: {'; '.join(sources)}." if sources else text


def page(content: dict[str, Any]) -> str:
    """The page bench.md: the table of a bench.json, and what its figures depend on."""
    rows = content["rows"]
    versions = ", ".join(f"{name} {number}" for name, number in content["versions"].items())
    note = f"- {content['note']}\n" if content.get("note") else ""
    return f"""<!-- Generated by `bertkd bench` from bench.json; do not edit. -->
# What models cost

{markdown_table(shown_rows(rows))}
{conditions(rows)}

{note}- Command: `{content["command"]}`
- Hardware: {machine_label(content["hardware"])}
- Versions: {versions}; commit `{content["commit"]}`
"""


def compared_rows(content: dict[str, Any], earlier: dict[str, Any]) -> list[dict[str, str]]:
    """What became of the rows that an earlier benchmark has too.

    Args:
        content, earlier: of bench.json, now and then.
    """
    known = {(row["model"], row["way"]): row for row in earlier["rows"]}
    others = [name for name in ("hardware", "versions") if content.get(name) != earlier.get(name)]
    compared = []

    for row in content["rows"]:
        old = known.get((row["model"], row["way"]))
        if old is None:
            continue
        differing = [name.replace("_", " ") for name in CONDITIONS if row[name] != old[name]] + others
        compared.append(
            {
                "model": row["model"],
                "engine": row["way"],
                "p50 then": f"{old['p50_ms']:.1f} ms",
                "p50 now": f"{row['p50_ms']:.1f} ms",
                "speed-up then": f"{old['speedup']:.2f}x",
                "speed-up now": f"{row['speedup']:.2f}x",
                "conditions": f"other {', '.join(differing)}" if differing else "the same",
            }
        )
    return compared or [{"": "No row is in both."}]
