"""Figures of papers, to show beside one's own results."""

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from bertkd.records.charts import interactive_chart
from bertkd.records.tables import task_label, text_of, without_empty_columns

__all__ = ["paper_charts", "paper_rows", "read_reference_points"]

TABLE_KEYS = {"paper", "place", "split", "hardware", "note", "reference", "models"}


def read_reference_points(path: str | Path) -> list[dict[str, Any]]:
    """Reads the tables of papers in a YAML file, such as `benchmarks/papers.yaml`.

    Each table has `paper`, `place` (where the figures stand), `split`, `hardware`, perhaps a `note`, a `reference`
    model and `models`. A model has a `name`, `scores` in percent by task, and perhaps `layers`, `speedup`,
    `parameters_m` (in millions) and a `note`.

    Raises:
        ValueError: the file holds something else; the message names it.
    """
    try:
        tables = yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise OSError(f"Cannot read {path} ({error.strerror}): give a YAML file with tables of papers.") from None
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise ValueError(f"{path} holds no tables of papers: {' '.join(str(error).split())}.") from error
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ValueError(f"{path} holds no tables of papers: a list of tables is expected.")

    try:
        for table in tables:
            if different := TABLE_KEYS ^ {*table, "note"}:
                raise ValueError(f"a table lacks, or should not have, {', '.join(sorted(different))}")
            # A table that cannot be shown is refused here, where its file is known.
            paper_rows(table)
    except KeyError as error:
        raise ValueError(f"{path} holds no tables of papers: a model or its scores lack {error}.") from error
    except (AttributeError, TypeError) as error:
        raise ValueError(f"{path} holds no tables of papers: a value has the wrong type.") from error
    except ValueError as error:
        raise ValueError(f"{path} holds no tables of papers: {error}.") from error
    return tables


def paper_charts(tables: Sequence[Mapping[str, Any]], tasks: Iterable[str]) -> list[str]:
    """Makes a chart per task: percentages of the BERT-base in the same table, against published speed-ups."""
    rows = []
    for table in tables:
        reference = table["reference"]
        for model in table["models"]:
            for task in set(model["scores"]) & set(reference["scores"]):
                score, base = model["scores"][task], reference["scores"][task]
                row = {"task": task, "method": table["paper"], "kind": "student", "label": model["name"]}
                row["quality"] = f"{score:g} beside {reference['name']}'s {base:g}, {table['split']}"
                rows.append(row | {"published": model.get("speedup"), "value": 100 * score / base, "std": math.nan})

    charts, points = [], pd.DataFrame(rows)
    for task in tasks if rows else []:
        title, x_label = f"{task_label(task)}: the papers' models", "Speed-up over BERT-base, as published (×)"
        of_task = points[points["task"] == task]
        charts.append(interactive_chart(of_task, "published", f"papers-{task}", (title, x_label, "% of BERT-base")))
    return charts


def paper_rows(table: Mapping[str, Any]) -> list[dict[str, str]]:
    """A paper's rows: scores, and in brackets the percentage of its BERT-base."""
    reference, rows = table["reference"], []

    for model in (reference, *table["models"]):
        row = {"Model": model["name"], "Layers": text_of(model.get("layers"))}
        row["Speed-up"] = text_of(model.get("speedup"), "{:g}x")
        row["Parameters"] = text_of(model.get("parameters_m"), "{:g}M")
        for task, score in sorted(model["scores"].items()):
            row[task_label(task)] = f"{score:g}"
            if model is not reference and task in reference["scores"]:
                row[task_label(task)] += f" ({100 * score / reference['scores'][task]:.1f}%)"
        rows.append(row | {"Note": model.get("note", "")})
    return without_empty_columns(pd.DataFrame(rows))
