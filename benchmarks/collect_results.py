"""Makes the pages and charts of docs/results from the results files there, and fills the table in README.md.

    python benchmarks/collect_results.py
    python benchmarks/collect_results.py --check          # exit code 1 when a generated file is stale

Where a results file lies says what it belongs to, see `bertkd.records.result_sets.read_sets`. The same files always
give the same text.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from transformers import HfArgumentParser

from bertkd.records import markdown_table, result_rows, summarize, task_label
from bertkd.records.pages import markdown_report
from bertkd.records.result_sets import ReportSet, read_sets
from bertkd.records.sections import training_notes

MARKERS = ("<!-- results:start -->", "<!-- results:end -->")


@dataclass
class Arguments:
    """Arguments of this script."""

    results_dir: str = field(default="docs/results", metadata={"help": "folder with the results files"})
    output: str = field(default="docs/results/index.md", metadata={"help": "the index to write; pages lie beside it"})
    readme: str = field(default="README.md", metadata={"help": "page whose marked table is filled, if it is there"})
    check: bool = field(default=False, metadata={"help": "write nothing; exit with 1 when a generated file is stale"})


def main(argv: Sequence[str] | None = None) -> int:
    """Generates or checks the files; returns the exit code."""
    parser = HfArgumentParser(Arguments, description=__doc__.splitlines()[0])  # type: ignore[arg-type]
    (arguments,) = parser.parse_args_into_dataclasses(args=None if argv is None else list(argv))
    output, readme = Path(arguments.output), Path(arguments.readme)

    try:
        sets = read_sets(Path(arguments.results_dir))
        report = markdown_report(sets, output, arguments.results_dir)
        if readme.exists():
            shown = next((results for results in sets if results.runs), sets[0])
            report.pages[readme] = fill_readme(readme, shown, output)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    if arguments.check:
        stale = report.stale_files()
        for path in stale:
            print(f"{path} is stale; run: python benchmarks/collect_results.py", file=sys.stderr)
        return 1 if stale else 0

    report.write()
    print(f"wrote {output} with {len(report.pages)} pages and {len(report.charts)} charts")
    return 0


def fill_readme(readme: Path, results: ReportSet, output: Path) -> str:
    """The text of `readme` with the overview between its markers; unchanged where it has no markers.

    Raises:
        ValueError: only one of the markers is there, or they are in the wrong order.
    """
    text = readme.read_text(encoding="utf-8")
    start, end = (text.find(marker) for marker in MARKERS)
    if start == end == -1:
        return text
    if start == -1 or end < start:
        raise ValueError(f"{readme} needs {MARKERS[0]} and, after it, {MARKERS[1]}")

    runs = [run for run in results.runs if not run.subnetworks]
    link = Path(os.path.relpath(output, readme.parent)).as_posix()
    lines = [f"Mean ± standard deviation over seeds, in percent; [all results, settings and commands]({link})."]
    for task in results.tasks:
        for note in training_notes([run for run in runs if run.task == task and run.method != "teacher"]):
            lines.append(f"{task_label(task)}: {note}")

    table = markdown_table(result_rows(summarize(runs), mark_best=True)) if runs else ""
    body = f"{table}\n" + "\n".join(lines) + "\n"
    return f"{text[: start + len(MARKERS[0])]}\n{body}{text[end:]}"


if __name__ == "__main__":
    sys.exit(main())
