"""Make the report of results files: a page that opens anywhere, charts, and Markdown tables.

    bertkd report --results_dir outputs --output_dir outputs/report

Writes index.html (one interactive file, nothing else is loaded), and report.md with a page and a PNG chart for each
task: quality against speed and size, with the Pareto front. The first folder below the results names a set of runs,
unless it bears the name of the task or method. The same files always give the same pages.
"""

from collections.abc import Sequence
from pathlib import Path

from bertkd.atomic import write_text
from bertkd.cli.parser import PlainParser
from bertkd.pipeline.experiment import RECORDS, SETTINGS
from bertkd.pipeline.folders import check_output
from bertkd.records import render_page
from bertkd.records.pages import markdown_report
from bertkd.records.papers import read_reference_points
from bertkd.records.result_sets import read_sets


def parser() -> PlainParser:
    """The parser of the command."""
    options = PlainParser("report", str(__doc__))
    options.add_argument("--results_dir", default="outputs", help="The folder with the results files.")
    options.add_argument("--output_dir", default="outputs/report", help="The folder to write the report to.")
    options.add_argument("--title", default="bertkd report", help="The title of the page.")
    options.add_argument("--reference_points", help="A YAML file with tables of papers to show beside the results.")
    return options


def unfinished_runs(folder: Path) -> list[Path]:
    """The folders below one in which a training has begun and not ended."""
    begun = [path.parent for path in sorted(folder.rglob(SETTINGS))]
    return [run for run in begun if not any((run / name).is_file() for name in RECORDS)]


def main(argv: Sequence[str] | None = None) -> Path:
    """Writes the report; returns the path of its page.

    Raises:
        FileNotFoundError: there is no results file.
        ValueError: there are no main runs, or a file is broken.
    """
    options = parser().parse(argv)
    folder, source = Path(options.output_dir), Path(options.results_dir)
    check_output(folder)
    sets = [results for results in read_sets(source) if results.runs or results.exports]
    if not sets:
        raise ValueError(f"{source} has only runs of searches and ablations; a report needs main runs beside them.")

    if unfinished := unfinished_runs(source):
        print(f"Left out, because they are not finished: {', '.join(map(str, unfinished))}")

    papers = read_reference_points(options.reference_points) if options.reference_points else []
    page = render_page(sets, options.title, papers)
    report = markdown_report(sets, folder / "report.md", str(source))

    report.write()
    write_text(folder / "index.html", page)
    print(f"Report: {folder / 'index.html'}, with report.md and {len(report.charts)} charts beside it")
    return folder / "index.html"
