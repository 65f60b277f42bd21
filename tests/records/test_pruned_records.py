"""Tables of students whose sizes a budget decides: they differ from task to task, and from seed to seed."""

from dataclasses import replace
from itertools import product
from typing import Any

import pytest

from bertkd.methods import method_label, sizes_follow_task
from bertkd.pruning.harms import UNIT_ORDERS
from bertkd.pruning.method import SHARES, variant_name
from bertkd.records import ExportResult, RunResult, result_rows, summarize
from bertkd.records.result_sets import ReportSet
from bertkd.records.sections import _with_speedups_of, task_sections


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


def exported(trained: RunResult) -> ExportResult:
    """The int8 export of a student."""
    shared = {name: value for name, value in vars(trained).items() if name in ExportResult.__dataclass_fields__}
    return ExportResult(
        **shared,
        value_before=trained.value,
        engine="openvino",
        precision="int8",
        runtime_precision="int8",
        attempt="",
        attempts=[],
        logit_difference=0.0,
        agreement=None,
        latency_ms=1.0,
        p95_ms=1.0,
        speedup_best=None,
        conditions={},
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


def test_every_name_of_a_pruned_student_has_a_label_and_follows_a_budget() -> None:
    names = {
        variant_name(share, has_rungs, is_fitted, beta, unit_order)
        for share, has_rungs, is_fitted, beta, unit_order in product(
            ("", *SHARES), (False, True), (False, True), (0.0, 1.0), UNIT_ORDERS
        )
    }
    assert len(names) == 96 and all(sizes_follow_task(name) for name in names)
    labels = {method_label(name) for name in names}
    assert len(labels) == 96 and not labels & names
    assert method_label("pruned-25-rungs-score") == "Pruned, 25% of the FLOPs, in rungs, units by score"


def test_a_student_with_a_budget_may_have_any_name() -> None:
    runs = [replace(run("mine", "sst2", seed, 50 + seed, 0.8), budget="5 ms") for seed in (1, 2)]
    runs += [replace(run("mine", "sst2", 1, 30, 0.7), budget="3 ms")]
    assert [row["Method"] for row in result_rows(summarize(runs))] == ["mine, 5 ms", "mine, 3 ms"]


def test_exports_of_several_seeds_and_budgets_have_a_row_for_each_budget() -> None:
    runs, exports = [run("teacher", "sst2", 42, 100_000_000, 0.9)], []
    for budget, size in (("5 ms", 50_000_000), ("", 30_000_000)):
        for seed in (42, 43):
            student = run("pruned" if budget else "pruned-25", "sst2", seed, size + 1_000_000 * seed, 0.8)
            runs.append(replace(student, budget=budget))
            exports.append(exported(runs[-1]))
    models = summarize(runs, exports)
    labels = ["Pruned, 5 ms, openvino int8", "Pruned, 25% of the FLOPs, openvino int8"]
    rows = result_rows(models[models["kind"] == "exported"])
    assert [(row["Method"], row["Seeds"], row["SST-2 accuracy"]) for row in rows] == [
        (label, "2", "80.0 ± 0.0") for label in labels
    ]


def test_an_ablation_stands_beside_the_student_of_its_budget() -> None:
    runs = [
        run("teacher", "sst2", 42, 100, 0.9),
        *(replace(run("pruned", "sst2", 42, size, 0.8), budget=f"{size} ms") for size in (5, 3)),
        run("pruned-25", "sst2", 42, 25, 0.8),
    ]
    ablation = [replace(runs[1], method="pruned-score"), replace(runs[3], method="pruned-25-nohidden")]
    sections = task_sections(ReportSet("", runs, ablation=ablation), summarize(runs))
    (section,) = (section for section in sections if section.title == "Ablation")
    assert sorted(row["Method"] for row in section.rows) == [
        "Pruned, 25% of the FLOPs",
        "Pruned, 25% of the FLOPs, without hidden states",
        "Pruned, 5 ms",
        "Pruned, units by score, 5 ms",
    ]


def test_a_budget_of_an_ablation_has_the_speed_of_that_budget() -> None:
    runs = [run("teacher", "sst2", 42, 100, 0.9)]
    for size, speedup in ((5, 2.0), (3, 4.0)):
        student = run("pruned", "sst2", 42, size, 0.8)
        runs.append(replace(student, budget=f"{size} ms", speedup=speedup, speedup_over=100))
    others = summarize([replace(runs[2], method="pruned-score", speedup=None)])
    assert _with_speedups_of(summarize(runs), runs, others)["speedup"].tolist() == [4.0]


def test_seeds_of_a_budget_stay_one_model_and_a_seed_that_occurs_twice_is_refused() -> None:
    seeds = [replace(run("pruned", "sst2", seed, 5 + seed, 0.8), budget="5 ms") for seed in (1, 2, 3)]
    assert len(summarize(seeds)) == 1
    with pytest.raises(ValueError, match="a seed occurs twice"):
        summarize([*seeds, replace(seeds[0], parameters=99)])


def test_seeds_of_another_method_still_have_one_size() -> None:
    runs = [run("kd", "sst2", 42, 60, 0.8), run("kd", "sst2", 43, 64, 0.8)]
    with pytest.raises(ValueError, match="the runs differ in parameters"):
        summarize(runs)
    assert not sizes_follow_task("kd") and sizes_follow_task("pruned") and sizes_follow_task("pruned-25-rungs")
    assert len(summarize([replace(runs[0], method="pruned"), replace(runs[1], method="pruned")])) == 1
