"""What came out of a run, and how it is shown: results files, tables, charts, model cards and reports."""

from bertkd.methods import method_label
from bertkd.records.cards import write_export_card, write_model_card, write_stage_card
from bertkd.records.charts import ChartPoint, accuracy_chart, curves_chart
from bertkd.records.environment import environment, now
from bertkd.records.models import result_rows, summarize
from bertkd.records.pages import render_page
from bertkd.records.result_sets import ReportSet
from bertkd.records.results import ExportResult, RunResult, StageResult, SubnetworkResult, read_result, read_results
from bertkd.records.tables import markdown_table, metric_label, subnetwork_rows, task_label, terminal_table

__all__ = ["ChartPoint", "ExportResult", "ReportSet", "RunResult", "StageResult", "SubnetworkResult"]
__all__ += ["accuracy_chart", "curves_chart", "environment", "markdown_table", "method_label", "metric_label", "now"]
__all__ += ["read_result", "read_results", "render_page", "result_rows", "subnetwork_rows", "summarize"]
__all__ += ["task_label", "terminal_table", "write_export_card", "write_model_card", "write_stage_card"]
