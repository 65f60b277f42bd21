"""Makes the pages and charts of docs/results from the results files there, and fills the table in README.md.

    python benchmarks/collect_results.py
    python benchmarks/collect_results.py --check          # exit code 1 when a generated file is stale

Where a results file lies says what it belongs to, see `bertkd.records.result_sets.read_sets`. The same files always
give the same text.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from bertkd.records import markdown_table, result_rows, summarize, task_label
from bertkd.records.pages import markdown_report
from bertkd.records.result_sets import ReportSet, read_sets
from bertkd.records.sections import caveats
from bertkd.records.tables import fill_markers

RESULTS, INDEX, README = Path("docs/results"), Path("docs/results/index.md"), Path("README.md")


def main(argv: Sequence[str] | None = None) -> int:
    """Generates or checks the files; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--check", action="store_true", help="Write nothing; exit with 1 when a file is stale.")
    check = parser.parse_args(argv).check

    try:
        sets = read_sets(RESULTS)
        report = markdown_report(sets, INDEX, str(RESULTS))
        if README.exists():
            report.pages[README] = fill_readme(README.read_text(encoding="utf-8"), sets)
    except (FileNotFoundError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1

    stale = report.stale_files()
    if check:
        for path in stale:
            print(f"{path} is stale; run: python benchmarks/collect_results.py", file=sys.stderr)
        return 1 if stale else 0

    report.write()
    print(f"wrote {len(stale)} of {len(report.pages)} pages and {len(report.charts)} charts")
    return 0


def fill_readme(text: str, sets: Sequence[ReportSet]) -> str:
    """The text of README.md with the table of the first set between its markers; unchanged where it has no markers.

    Raises:
        ValueError: only one of the markers is there, or they are in the wrong order.
    """
    if "<!-- results:" not in text:
        return text

    notes = [
        "Mean ± standard deviation over seeds, in percent. Bold is the best student with this number of layers, and "
        "pruned students are not compared so; the "
        "share of the teacher is that of the mean over the tasks that most rows have. "
        f"[All results, settings and commands]({INDEX})."
    ]
    runs = [run for run in sets[0].runs if not run.subnetworks]
    for task in sets[0].tasks:
        of_task = [run for run in runs if run.task == task]
        for note in caveats(of_task, of_task):
            notes.append(f"{task_label(task)}: {note}")

    table = markdown_table(result_rows(summarize(runs), mark_best=True))
    try:
        return fill_markers(text, "results", f"{table}\n" + "\n".join(notes))
    except ValueError as error:
        raise ValueError(f"{README}: {error}") from None


if __name__ == "__main__":
    sys.exit(main())
