"""What came out of a run, and how it is shown: results files, efficiency, tables, charts and model cards."""

from bertkd.records.charts import (
    Bar,
    ChartPoint,
    accuracy_chart,
    bars_chart,
    curves_chart,
    frontier_chart,
    is_chart_of,
)
from bertkd.records.environment import environment
from bertkd.records.frontier import SIZE, SPEED, Axis, Point, all_points, pareto_front
from bertkd.records.model_card import write_export_card, write_model_card, write_stage_card
from bertkd.records.page import ReportSet, render_markdown, render_page
from bertkd.records.results import (
    ExportResult,
    RunResult,
    Spread,
    StageResult,
    SubnetworkResult,
    Summary,
    read_result,
    read_results,
    result_files,
    summarize,
)
from bertkd.records.tables import (
    markdown_table,
    method_label,
    metric_label,
    result_rows,
    subnetwork_rows,
    task_label,
    terminal_table,
    verdict,
)

__all__ = [
    "SIZE",
    "SPEED",
    "Axis",
    "Bar",
    "ChartPoint",
    "ExportResult",
    "Point",
    "ReportSet",
    "RunResult",
    "Spread",
    "StageResult",
    "SubnetworkResult",
    "Summary",
    "accuracy_chart",
    "all_points",
    "bars_chart",
    "curves_chart",
    "environment",
    "frontier_chart",
    "is_chart_of",
    "markdown_table",
    "method_label",
    "metric_label",
    "pareto_front",
    "read_result",
    "read_results",
    "render_markdown",
    "render_page",
    "result_files",
    "result_rows",
    "subnetwork_rows",
    "summarize",
    "task_label",
    "terminal_table",
    "verdict",
    "write_export_card",
    "write_model_card",
    "write_stage_card",
]
