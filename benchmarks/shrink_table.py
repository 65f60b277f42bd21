"""Makes the table of docs/levers.md from docs/levers.json, which `bertkd shrink --record docs/levers.json` collects.

python benchmarks/shrink_table.py
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertkd.atomic import write_text
from bertkd.metrics import main_value
from bertkd.pipeline.shrink import recut_sentence
from bertkd.records import markdown_table, metric_label, task_label
from bertkd.records.tables import fill_markers

RECORD = Path(__file__).parents[1] / "docs" / "levers.json"


def with_table(page: str, entries: Sequence[dict[str, Any]]) -> str:
    """A page with the table of some runs between its markers.

    Raises:
        ValueError: it has no markers.
    """
    return fill_markers(page, "levers", render(entries))


def render(entries: Sequence[dict[str, Any]]) -> str:
    """The table of several runs, and what they were measured with: each model once as it was, and once per run."""
    entries = sorted(entries, key=lambda entry: (entry["task"], -entry["after"]["parameters"]))

    rows: dict[str, dict[str, str]] = {}
    conditions = sorted({_conditions(entry) for entry in entries})
    for entry in entries:
        task, steps = task_label(entry["task"]), ", ".join(entry["levers"])
        rows.setdefault(f"{task} none", _row(entry, "before", task, "none"))
        rows[f"{task} {steps}"] = _row(entry, "after", task, steps)
        if entry.get("recut_rows"):
            conditions.append(f"- {task}, {steps}: {recut_sentence(entry)}")

    lines = "\n".join(conditions)
    commands = "\n".join(entry["command"] for entry in entries)
    return f"""{markdown_table(list(rows.values()))}
{lines}

<details><summary>The commands</summary>

```text
{commands}
```

</details>
"""


def _row(entry: dict[str, Any], name: str, task: str, steps: str) -> dict[str, str]:
    figures = entry[name]
    encoder = figures["parameters"] - figures["embedding_parameters"]
    value = main_value(figures["metrics"], entry["metric"])
    return {
        "Made smaller by": steps,
        "Task": task,
        "Metric": f"{100 * value:.1f} {metric_label(entry['metric'])}",
        "Parameters": f"{figures['parameters'] / 1e6:.2f}M",
        "Without embeddings": f"{encoder / 1e6:.2f}M",
        "Size": f"{figures['size_mb']:.1f} MB",
        "GFLOPs": f"{figures['gflops']:.2f}",
        "Speed-up": f"{figures['latency']['speedup']:.2f}x",
    }


def _conditions(entry: dict[str, Any]) -> str:
    latency, hardware = entry["after"]["latency"], entry["hardware"]
    versions = ", ".join(f"{name} {version}" for name, version in entry["versions"].items())
    return (
        f"- Latency and FLOPs: batch {latency['batch_size']}, {latency['sequence_length']} tokens, "
        f"{latency['threads']} threads, {latency['precision']}, {latency['device']} ({hardware['cpu']}), "
        f"{latency['repeats']} passes. Versions: {versions}; commit `{entry['commit']}`."
    )


def main() -> None:
    """Writes the page."""
    page = RECORD.with_suffix(".md")
    entries = json.loads(RECORD.read_text(encoding="utf-8"))
    write_text(page, with_table(page.read_text(encoding="utf-8"), entries))


if __name__ == "__main__":
    main()
