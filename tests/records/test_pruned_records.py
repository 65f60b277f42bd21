"""Tables of students whose sizes a budget decides: they differ from task to task, and from seed to seed."""

from dataclasses import replace
from typing import Any

import pytest

from bertkd.methods import sizes_follow_task
from bertkd.records import RunResult, result_rows, summarize


def run(method: str, task: str, seed: int, parameters: int, value: float) -> RunResult:
    plain: dict[str, Any] = dict.fromkeys(("settings", "versions", "hardware", "metrics_before", "teacher_metrics"))
    plain = {name: {} for name in plain}
    return RunResult(
        method=method,
        task=task,
        metric="accuracy",
        value=value,
        metrics={"accuracy": value},
        parameters=parameters,
        embedding_parameters=0,
        size_mb=parameters / 1e6,
        layers=12,
        seed=seed,
        command="bertkd",
        commit="",
        seconds=1.0,
        finished="",
        rows={},
        paper="",
        **plain,
    )


def test_a_budget_has_one_row_with_the_mean_of_its_sizes() -> None:
    runs = [
        run("teacher", "sst2", 42, 100_000_000, 0.9),
        run("pruned-50", "sst2", 42, 60_000_000, 0.88),
        run("pruned-50", "sst2", 43, 64_000_000, 0.90),
        run("pruned-50", "rte", 42, 70_000_000, 0.7),
        run("pruned-25", "sst2", 42, 40_000_000, 0.8),
    ]
    rows = {row["Method"]: row for row in result_rows(summarize(runs), mark_best=True)}
    assert list(rows) == ["Teacher", "Pruned, 50% of the FLOPs", "Pruned, 25% of the FLOPs"]
    half = rows["Pruned, 50% of the FLOPs"]
    assert half["Parameters"] == "66.0M" and half["SST-2 accuracy"] == "89.0 ± 1.4" and half["RTE accuracy"] == "70.0"
    assert half["Seeds"] == "1-2"


def test_budgets_that_no_name_says_have_a_row_each() -> None:
    sizes = {"3 ms": 30_000_000, "5 ms": 50_000_000}
    runs = [run("teacher", "sst2", 42, 100_000_000, 0.9)]
    for seed in (42, 43):
        runs += [
            replace(run("pruned-rungs", "sst2", seed, size, 0.8), budget=budget) for budget, size in sizes.items()
        ]
    rows = result_rows(summarize(runs), mark_best=True)
    labels = [f"Pruned, in rungs, {budget}" for budget in ("5 ms", "3 ms")]
    assert [row["Method"] for row in rows] == ["Teacher", *labels]
    assert [(row["Parameters"], row["Seeds"], row["SST-2 accuracy"]) for row in rows[1:]] == [
        ("50.0M", "2", "80.0 ± 0.0"),
        ("30.0M", "2", "80.0 ± 0.0"),
    ]


def test_seeds_of_another_method_still_have_one_size() -> None:
    runs = [run("kd", "sst2", 42, 60, 0.8), run("kd", "sst2", 43, 64, 0.8)]
    with pytest.raises(ValueError, match="the runs differ in parameters"):
        summarize(runs)
    assert not sizes_follow_task("kd") and sizes_follow_task("pruned") and sizes_follow_task("pruned-25-rungs")
    assert len(summarize([replace(runs[0], method="pruned"), replace(runs[1], method="pruned")])) == 1
