"""Measure what models cost: parameters, size, FLOPs, memory, latency and throughput, in every engine that is there.

    python recipes/benchmark.py bert-base bert6 bert3 tinybert4 --output_dir outputs/bench
    python recipes/benchmark.py outputs/teacher outputs/pkd outputs/pkd-int8 --compare outputs/bench/bench.json

A model is a shape by its name (random weights, nothing is downloaded), a model's folder, or an exported one. The first
is the baseline: in eager float32 PyTorch, as papers measure, and in the engine that runs it fastest. All models take
turns in one process; `bench.json` keeps the figures with everything they depend on, `bench.md` is the table as a page.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import torch
from transformers import AutoTokenizer, PreTrainedModel

from bertkd.atomic import write_json, write_text
from bertkd.cli.arguments import command_line
from bertkd.cli.experiment import quiet
from bertkd.cli.export import eager
from bertkd.cli.loading import load_model
from bertkd.efficiency import PRESETS, Latency, Runner, count_flops, count_parameters, measure_latency
from bertkd.export import (
    ENGINE_PACKAGES,
    ENGINES,
    PRECISIONS,
    available_engines,
    exported_size_mb,
    open_exported,
    quantization_schemes,
    random_batches,
    require_engine,
    runs_in,
    write_export,
)
from bertkd.export.engines import MANIFEST
from bertkd.records import environment, markdown_table, terminal_table
from bertkd.records.tables import machine_label

SCHEMA = 1
EAGER = "pytorch float32 (eager)"


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    arguments = parse_arguments(argv)
    if arguments.memory_of:
        return memory_worker(Path(arguments.memory_of), arguments)
    quiet()
    earlier = read_benchmark(arguments.compare) if arguments.compare else None
    for engine in arguments.engines:
        require_engine(engine)
    with tempfile.TemporaryDirectory() as work:
        folders = write_models(arguments, Path(work))
        rows = measure(folders, arguments)
    found = {
        "schema": SCHEMA,
        "rows": rows,
        "command": command_line(argv),
        **environment(ENGINE_PACKAGES),
    }
    print(f"\n{terminal_table([shown(row, rows) for row in rows])}\n\n{conditions(rows)}")
    if earlier is not None:
        print(f"\nAgainst {arguments.compare}:\n\n{terminal_table(compared(rows, earlier))}")
    path = Path(arguments.output_dir) / "bench.json"
    write_json(path, found)
    write_text(path.with_suffix(".md"), page(found))
    print(f"\nFigures: {path}, the table also {path.with_suffix('.md')}")
    return found


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", metavar="MODEL", help=f"A folder, or one of {', '.join(PRESETS)}.")
    parser.add_argument("--engines", nargs="+", default=available_engines(), choices=ENGINES)
    parser.add_argument("--precisions", nargs="+", default=["float32", "int8"], choices=PRECISIONS)
    parser.add_argument("--batch_size", type=int, default=1)
    parser.add_argument("--sequence_length", type=int, default=128, help="Tokens of every row; none is padding.")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads(), help="Of the CPU.")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--warmup", type=int, default=3)
    parser.add_argument("--device", default="cpu", help="Where PyTorch runs; the other engines use the CPU.")
    parser.add_argument("--compare", help="An earlier bench.json.")
    parser.add_argument("--output_dir", default="outputs/bench")
    parser.add_argument("--memory_of", help=argparse.SUPPRESS)
    parser.add_argument("--eager", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args(argv)
    if not arguments.models and not arguments.memory_of:
        parser.error(f"name the models to measure: folders, or some of {', '.join(PRESETS)}.")
    return arguments


def read_benchmark(path: str) -> list[dict[str, Any]]:
    """The rows of an earlier bench.json.

    Raises:
        ValueError: it is none, or one of another schema.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
        rows: list[dict[str, Any]] = found["rows"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is no bench.json of this recipe: {error}") from None
    if found.get("schema") != SCHEMA:
        raise ValueError(f"{path} has schema {found.get('schema')}; this version reads {SCHEMA}.")
    return rows


def write_models(arguments: argparse.Namespace, work: Path) -> list[dict[str, Any]]:
    """Every model in every engine and precision, as folders, with what does not depend on the engine.

    The first model comes first, in eager PyTorch: the baseline, unless it is an export.
    """
    found: list[dict[str, Any]] = []
    names = [Path(name).name for name in arguments.models]
    for name in arguments.models:
        # Folders of one name are told apart by their paths.
        title = name if name in PRESETS or names.count(Path(name).name) > 1 else Path(name).name
        if (Path(name) / MANIFEST).is_file():
            found.append({"model": title, "way": "as exported", "folder": Path(name)})
            continue
        model, tokenizer = load(name)
        size = count_parameters(model)
        facts = {
            "model": title,
            "parameters": size.total,
            "embedding_parameters": size.embeddings,
            "gflops": count_flops(model, arguments.batch_size, arguments.sequence_length) / 1e9,
            "paper_speedup": PRESETS[name].speedup if name in PRESETS else None,
            "paper": PRESETS[name].source if name in PRESETS else "",
        }
        batches = random_batches(model)
        if not found:
            folder = write_export(model, work / "eager", "pytorch", "float32", tokenizer)
            found.append(facts | {"way": EAGER, "folder": folder})
        for engine in arguments.engines:
            for precision in arguments.precisions:
                if not runs_in(engine, precision, arguments.device):
                    continue
                print(f"exporting {facts['model']}: {engine} {precision}", flush=True)
                folder = work / f"{len(found)}"
                write_export(model, folder, engine, quantization_schemes(engine, precision)[0], tokenizer, batches)
                found.append(facts | {"way": f"{engine} {precision}", "folder": folder})
    return found


def load(name: str) -> tuple[PreTrainedModel, Any]:
    """A shape with random weights, or the model and the tokenizer in a folder."""
    if name in PRESETS:
        return PRESETS[name].make(), None
    if not (Path(name) / "config.json").is_file():
        raise ValueError(f"{name} is no model's folder, nor one of the shapes {', '.join(PRESETS)}.")
    return load_model(name).eval(), AutoTokenizer.from_pretrained(name)


def measure(folders: list[dict[str, Any]], arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """All models in turn; the first row is the first model in eager float32 PyTorch."""
    runners: dict[str, Runner] = {}
    described: dict[str, dict[str, Any]] = {}
    for facts in folders:
        name = f"{facts['model']}, {facts['way']}"
        if name in runners:
            raise ValueError(f"{name} is there twice: name each model once.")
        runners[name], described[name] = open_runner(facts["folder"], facts["way"] == EAGER, arguments), facts
    settings = (arguments.batch_size, arguments.sequence_length, arguments.repeats, arguments.warmup)
    latency = measure_latency(runners, *settings, threads=arguments.threads)
    with ThreadPoolExecutor(max(1, (os.cpu_count() or 1) // 2)) as pool:  # time is measured by now
        memory = pool.map(lambda facts: peak_memory(facts["folder"], facts["way"] == EAGER, arguments), folders)
        return [
            row(described[name], one, peak, arguments)
            for (name, one), peak in zip(latency.items(), memory, strict=True)
        ]


def open_runner(folder: Path, is_eager: bool, arguments: argparse.Namespace) -> Runner:
    """What runs the model in a folder."""
    if is_eager:
        return eager(load_model(str(folder)).to(arguments.device))
    return open_exported(folder, arguments.threads, arguments.device)


def row(facts: dict[str, Any], latency: Latency, peak: float, arguments: argparse.Namespace) -> dict[str, Any]:
    """One model in one engine, for bench.json."""
    return {
        **{name: value for name, value in facts.items() if name != "folder"},
        "size_mb": exported_size_mb(facts["folder"]),
        "peak_memory_mb": peak,
        "warmup": arguments.warmup,
        **asdict(latency),
    }


def peak_memory(folder: Path, is_eager: bool, arguments: argparse.Namespace) -> float:
    """MB by which a process of its own grows at most while it opens the model and runs it."""
    script = [sys.executable, "-m", "bertkd", "bench", "--memory_of", str(folder), *(["--eager"] if is_eager else [])]
    script += ["--threads", str(arguments.threads)]
    script += ["--batch_size", str(arguments.batch_size), "--sequence_length", str(arguments.sequence_length)]
    ran = subprocess.run([*script, "--device", arguments.device], capture_output=True, text=True, check=False)
    if ran.returncode != 0:
        raise RuntimeError(f"Measuring the memory of {folder} failed: {ran.stderr.strip()[-500:]}")
    return float(json.loads(ran.stdout.splitlines()[-1])["peak_memory_mb"])


def memory_worker(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """The process of `peak_memory`."""
    quiet()
    for package in ("onnxruntime", "openvino"):  # their own size is no model's
        if package in available_engines():
            __import__(package)
    process, on_gpu = psutil.Process(), arguments.device.startswith("cuda")
    before = process.memory_info().rss
    runner = open_runner(folder, arguments.eager, arguments)
    measure_latency({"model": runner}, arguments.batch_size, arguments.sequence_length, 2, 1, arguments.threads)
    grown = torch.cuda.max_memory_allocated() if on_gpu else _peak_rss(process) - before
    found = {"peak_memory_mb": grown / 1e6}
    print(json.dumps(found))
    return found


def _peak_rss(process: psutil.Process) -> int:
    """Bytes. Not `ru_maxrss` on Linux: a process inherits it from the one that started it, here a large one."""
    status = Path("/proc/self/status")
    if status.is_file():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    if sys.platform == "win32":
        return int(process.memory_info().peak_wset)
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def shown(one: dict[str, Any], rows: list[dict[str, Any]]) -> dict[str, str]:
    """A row for a terminal: speed-ups over the baseline in eager float32, and over it in its fastest engine."""
    fastest = min(other["p50_ms"] for other in rows if other["model"] == rows[0]["model"])
    paper = one.get("paper_speedup")
    return {
        "model": one["model"],
        "engine": one["way"],
        "computes in": one["precision"],
        "parameters": f"{one['parameters'] / 1e6:.1f}M" if "parameters" in one else "",
        "in embeddings": f"{one['embedding_parameters'] / 1e6:.1f}M" if "parameters" in one else "",
        "size": f"{one['size_mb']:.1f} MB",
        "GFLOPs": f"{one['gflops']:.2f}" if "gflops" in one else "",
        "memory": f"{one['peak_memory_mb']:.0f} MB",
        "p50": f"{one['p50_ms']:.1f} ms",
        "p95": f"{one['p95_ms']:.1f} ms",
        "rows/s": f"{one['throughput']:.1f}",
        "speed-up": f"{one['speedup']:.2f}x",
        "over the best": f"{fastest / one['p50_ms']:.2f}x",
        "in the paper": "" if paper is None else f"{paper:.2f}x",
    }


def conditions(rows: list[dict[str, Any]]) -> str:
    """What a reader needs to know of the table."""
    one = rows[0]
    sources = dict.fromkeys(row["paper"] for row in rows if row.get("paper"))
    text = (
        f"Batch {one['batch_size']}, {one['sequence_length']} tokens, no padding, {one['threads']} threads, "
        f"{one['repeats']} repeats in turn after {one['warmup']} that do not count. Speed-ups are over the first row, "
        f"and over {one['model']} in its fastest engine. Memory is what a process of its own grows by."
    )
    return "\n\n".join([text, *(["Papers: " + "; ".join(sources) + "."] if sources else [])])


def page(found: dict[str, Any]) -> str:
    """bench.md: the table of a bench.json, and what its figures depend on."""
    rows = found["rows"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    return f"""<!-- Generated by recipes/benchmark.py from bench.json; do not edit. -->
# What models cost

{markdown_table([shown(one, rows) for one in rows])}
{conditions(rows)}

- Command: `{found["command"]}`
- Hardware: {machine_label(found["hardware"])}
- Versions: {versions}; commit `{found["commit"]}`
"""


def compared(rows: list[dict[str, Any]], earlier: list[dict[str, Any]]) -> list[dict[str, str]]:
    """What became of the rows that an earlier benchmark has too."""
    known = {(one["model"], one["way"]): one for one in earlier}
    found = []
    for one in rows:
        old = known.get((one["model"], one["way"]))
        if old is not None:
            same = all(one[name] == old[name] for name in ("batch_size", "sequence_length", "threads", "precision"))
            found.append(
                {
                    "model": one["model"],
                    "engine": one["way"],
                    "p50 then": f"{old['p50_ms']:.1f} ms",
                    "p50 now": f"{one['p50_ms']:.1f} ms",
                    "speed-up then": f"{old['speedup']:.2f}x",
                    "speed-up now": f"{one['speedup']:.2f}x",
                    "conditions": "the same" if same else "others",
                }
            )
    return found or [{"": "No row is in both."}]
