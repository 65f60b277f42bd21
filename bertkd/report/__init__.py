"""What came out of a run, and how it is shown: results files, efficiency, tables, charts and model cards."""

from bertkd.report.charts import Bar, ChartPoint, accuracy_chart, bars_chart, is_chart_of
from bertkd.report.efficiency import Latency, Parameters, count_parameters, measure_latency, model_size_mb
from bertkd.report.model_card import write_model_card
from bertkd.report.results import (
    RunResult,
    Spread,
    Summary,
    atomic_path,
    environment,
    read_result,
    read_results,
    result_files,
    summarise,
    write_json,
    write_text,
)
from bertkd.report.tables import markdown_table, method_label, result_rows, terminal_table, verdict

__all__ = [
    "Bar",
    "ChartPoint",
    "Latency",
    "Parameters",
    "RunResult",
    "Spread",
    "Summary",
    "accuracy_chart",
    "atomic_path",
    "bars_chart",
    "count_parameters",
    "environment",
    "is_chart_of",
    "markdown_table",
    "measure_latency",
    "method_label",
    "model_size_mb",
    "read_result",
    "read_results",
    "result_files",
    "result_rows",
    "summarise",
    "terminal_table",
    "verdict",
    "write_json",
    "write_model_card",
    "write_text",
]
