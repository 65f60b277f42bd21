"""Make the report of results files: a page that opens anywhere, charts, and Markdown tables.

    bertkd report --results_dir outputs --output_dir outputs/report

Writes index.html (one interactive file, nothing else is loaded), and report.md with a page and a PNG chart for each
task: quality against speed and size, with the Pareto front. The first folder below the results names a set of runs,
unless it bears the name of the task or method. The same files always give the same pages.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from bertkd.atomic import write_text
from bertkd.records import render_page
from bertkd.records.page import read_reference_points
from bertkd.records.pages import markdown_report
from bertkd.records.result_sets import read_sets


def main(argv: Sequence[str] | None = None) -> Path:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results_dir", default="docs/results", help="Folder with the results files.")
    parser.add_argument("--output_dir", default="outputs/report", help="Folder to write the report to.")
    parser.add_argument("--title", default="bertkd report", help="Title of the page.")
    parser.add_argument("--reference_points", help="YAML file with tables of papers, to show beside the results.")
    arguments = parser.parse_args(argv)

    folder, source = Path(arguments.output_dir), Path(arguments.results_dir)
    sets = [results for results in read_sets(source) if results.runs or results.exports]
    if not sets:
        raise ValueError(f"{source} has only runs of searches and ablations; a report needs main runs beside them.")

    papers = read_reference_points(arguments.reference_points) if arguments.reference_points else []
    page = render_page(sets, arguments.title, papers)
    report = markdown_report(sets, folder / "report.md", str(source))

    report.write()
    write_text(folder / "index.html", page)
    print(f"Report: {folder / 'index.html'}, with report.md and {len(report.charts)} charts beside it")
    return folder / "index.html"
