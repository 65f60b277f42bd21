"""Fills the Jinja2 templates of cards, pages and reports."""

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from bertkd.records.tables import machine_label, markdown_table, markdown_text, method_label, metric_label, task_label

__all__ = ["render"]


def render(template: str, **values: Any) -> str:
    """Fills a template of this package. What comes from files is escaped in HTML, and in the tables of Markdown."""
    return _environment().get_template(template).render(values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("bertkd.records"),
        autoescape=lambda name: name is not None and ".html" in name,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {"task": task_label, "method": method_label, "metric": metric_label}
    environment.filters |= {"machine": machine_label, "table": markdown_table, "plain": markdown_text}
    return environment
