"""Measure what models cost: parameters, size, FLOPs, memory, latency and throughput, in every engine that is there.

    bertkd bench bert-base bert6 bert3 tinybert4 --output_dir outputs/bench
    bertkd bench outputs/teacher outputs/pkd outputs/pkd-int8 --compare outputs/bench/bench.json

A model is a shape by its name (random weights, nothing is downloaded), a model's folder, or an exported one. The first
is the baseline: in eager float32 PyTorch, as papers measure, and in the engine that runs it fastest. All models take
turns in one process. bench.json keeps the figures with everything they depend on; bench.md is the table as a page.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from bertkd.atomic import write_json, write_text
from bertkd.cli.commands import quiet
from bertkd.cli.parser import PlainParser, command_line
from bertkd.cli.rules import COUNT, NOT_NEGATIVE
from bertkd.efficiency import PRESETS, check_device
from bertkd.export import ENGINE_PACKAGES, ENGINES, PRECISIONS, available_engines, require_engine
from bertkd.pipeline.bench import SCHEMA, Benchmark, compared_rows, conditions, page, read_benchmark, shown_rows
from bertkd.pipeline.folders import check_output
from bertkd.records import environment, terminal_table


def parser() -> PlainParser:
    """The parser of the command."""
    made = PlainParser("bench", str(__doc__))
    made.add_argument("models", nargs="+", metavar="MODEL", help=f"A folder, or one of {', '.join(PRESETS)}.")
    made.add_argument(
        "--engines", nargs="+", default=available_engines(), choices=ENGINES, help="The engines to measure in."
    )
    made.add_argument(
        "--precisions",
        nargs="+",
        default=["float32", "int8"],
        choices=PRECISIONS,
        help="The precisions to measure in.",
    )
    made.add_argument("--batch_size", type=int, range=COUNT, default=1, help="The rows of a pass.")
    made.add_argument(
        "--sequence_length", type=int, range=COUNT, default=128, help="The tokens of every row; none is padding."
    )
    made.add_argument(
        "--threads", type=int, range=COUNT, default=torch.get_num_threads(), help="How many CPU threads are used."
    )
    made.add_argument(
        "--repeats", type=int, range=COUNT, default=20, help="How many passes of each model are measured."
    )
    made.add_argument(
        "--warmup", type=int, range=NOT_NEGATIVE, default=3, help="How many passes before them do not count."
    )
    made.add_argument("--device", default="cpu", help="Where PyTorch runs; the other engines use the CPU.")
    made.add_argument("--compare", help="An earlier bench.json to compare with.")
    made.add_argument("--note", default="", help="A sentence for the page, such as what the models are.")
    made.add_argument("--output_dir", default="outputs/bench", help="The folder of bench.json and bench.md.")
    return made


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Measures; returns the content of bench.json."""
    options = parser().parse(argv)
    quiet()
    # What cannot work ends before anything is measured.
    earlier = read_benchmark(options.compare) if options.compare else None
    for engine in options.engines:
        require_engine(engine)

    check_device(options.device)
    check_output(options.output_dir)

    benchmark = Benchmark(
        options.models,
        options.engines,
        options.precisions,
        options.batch_size,
        options.sequence_length,
        options.threads,
        options.repeats,
        options.warmup,
        options.device,
    )
    rows = benchmark.run()
    content = {
        "schema": SCHEMA,
        "rows": rows,
        **({"note": options.note} if options.note else {}),
        "command": command_line("bench", argv),
        **environment(ENGINE_PACKAGES),
    }

    print(f"\n{terminal_table(shown_rows(rows))}\n\n{conditions(rows)}")
    if earlier is not None:
        print(f"\nAgainst {options.compare}:\n\n{terminal_table(compared_rows(content, earlier))}")

    path = Path(options.output_dir) / "bench.json"
    write_json(path, content)
    write_text(path.with_suffix(".md"), page(content))
    print(f"\nFigures: {path}, the table also {path.with_suffix('.md')}")
    return content
