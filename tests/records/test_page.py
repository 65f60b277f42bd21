"""The report: points, the Pareto front, the papers' figures, charts, the page, and how a browser sees it."""

from __future__ import annotations

import base64
import html
import json
import math
import re
import shutil
import struct
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from bertkd.atomic import write_json
from bertkd.cli import report
from bertkd.records import (
    ExportResult,
    ReportSet,
    RunResult,
    SubnetworkResult,
    charts,
    method_label,
    read_result,
    render_page,
    result_rows,
    summarize,
)
from bertkd.records.charts import frontier_chart, is_chart_of, method_colors
from bertkd.records.models import SIZE, SPEED, pareto_front
from bertkd.records.pages import markdown_report
from bertkd.records.papers import read_reference_points
from bertkd.records.result_sets import read_sets
from bertkd.records.results import result_files
from bertkd.records.tables import row_dicts

ROOT = Path(__file__).parents[2]
ENVIRONMENT: dict[str, Any] = {
    "versions": {"python": "3.12.1", "torch": "2.13.0"},
    "commit": "0123abc",
    "hardware": {"cpu": "A CPU", "cores": 2, "threads": 2, "memory_gib": 8.0, "gpu": None},
    "settings": {"alpha": 0.7, "learning_rate": 1e-4, "output_dir": "somewhere", "dynabert": {"stage": "width"}},
}
PAPERS = read_reference_points(ROOT / "benchmarks" / "papers.yaml")
OUTSIDE = re.compile(r"""(?:src|href|xlink:href|action|data)\s*=\s*["']?(?!["'#]|data:,)|@import|url\(""")


def make_run(method: str = "kd", task: str = "sst2", value: float = 0.9, seed: int = 1, **changes: Any) -> RunResult:
    is_teacher = method == "teacher"
    fields: dict[str, Any] = {
        "metric": "accuracy",
        "metrics": {"accuracy": value},
        "metrics_before": {},
        "teacher_metrics": {},
        "parameters": 22_000_000 if is_teacher else 17_000_000,
        "embedding_parameters": 11_900_000,
        "size_mb": 88.0 if is_teacher else 68.0,
        "layers": 6 if is_teacher else 3,
        "command": f"python recipes/{method}.py --task_name {task} --seed {seed}",
        "seconds": 1800.0,
        "finished": f"2026-01-0{seed}T00:00:00+00:00",
        "rows": {"train": 100},
        "speedup": None if is_teacher else 2.0,
    }
    return RunResult(method=method, task=task, value=value, seed=seed, **(ENVIRONMENT | fields | changes))


def make_export(
    method: str = "kd", task: str = "sst2", value: float = 0.89, seed: int = 1, **changes: Any
) -> ExportResult:
    is_teacher = method == "teacher"
    fields: dict[str, Any] = {
        "metric": "accuracy",
        "metrics": {"accuracy": value},
        "value_before": value + 0.01,
        "metrics_before": {"accuracy": value + 0.01},
        "engine": "openvino",
        "precision": "int8",
        "runtime_precision": "int8",
        "attempt": "per-channel",
        "attempts": [],
        "logit_difference": 0.1,
        "agreement": 0.99,
        "parameters": 22_000_000 if is_teacher else 17_000_000,
        "embedding_parameters": 11_900_000,
        "size_mb": 23.0 if is_teacher else 17.5,
        "latency_ms": 5.0,
        "p95_ms": 6.0,
        "speedup": 8.0,
        "speedup_best": 2.1,
        "conditions": {"batch_size": 1, "tokens": 128},
        "layers": 6 if is_teacher else 3,
        "command": f"python recipes/export.py --model outputs/{method}",
        "finished": f"2026-02-0{seed}T00:00:00+00:00",
    }
    return ExportResult(method=method, task=task, value=value, seed=seed, **(ENVIRONMENT | fields | changes))


def make_sizes(value: float = 0.9) -> list[SubnetworkResult]:
    """Four widths and three depths, each step worse and faster."""
    sizes = []
    for step, (depth, width) in enumerate(
        (depth, width) for depth in (1.0, 0.75, 0.5) for width in (1.0, 0.75, 0.5, 0.25)
    ):
        share = width * depth
        sizes.append(
            SubnetworkResult(
                width=width,
                depth=depth,
                layers=round(6 * depth),
                value=value - 0.004 * step,
                metrics={"accuracy": value - 0.004 * step},
                parameters=round(12_000_000 + 10_000_000 * share),
                embedding_parameters=11_900_000,
                flops=round(3e9 * share),
                latency_ms=20.0 * share,
                speedup=round(1 / share, 2),
            )
        )
    return sizes


def make_models(*models: tuple[str, float, float, float]) -> pd.DataFrame:
    """Models of a made-up task by name, speed-up, value and size."""
    return pd.DataFrame(models, columns=["label", SPEED, "value", SIZE]).assign(kind="student", method="kd")


def front(models: pd.DataFrame, axis: str) -> list[str]:
    return models[pareto_front(models, axis)]["label"].tolist()


def many_results() -> tuple[tuple[RunResult, ...], tuple[ExportResult, ...]]:
    """Every kind of point on two tasks, several seeds, two depths."""
    runs: list[RunResult] = []
    exports: list[ExportResult] = []
    for task, top in (("rte", 0.66), ("sst2", 0.92)):
        runs.append(make_run("teacher", task, top))
        for seed in (1, 2, 3):
            scatter = 0.004 * (seed - 2)
            for rank, method in enumerate(("finetuned", "kd", "pkd-skip", "pkd-last")):
                runs.append(
                    make_run(method, task, top - 0.05 + 0.006 * rank + scatter, seed, speedup=1.9 + 0.05 * seed)
                )
            small = {"parameters": 9_000_000, "size_mb": 36.0, "layers": 4, "speedup": 4.4}
            runs.append(make_run("tinybert", task, top - 0.07 + scatter, seed, **small))
            whole = {"layers": 6, "parameters": 22_000_000, "size_mb": 88.0, "speedup": None}
            runs.append(make_run("dynabert-finetune", task, top, seed, subnetworks=make_sizes(top + scatter), **whole))
        exports.append(make_export("teacher", task, top - 0.004, speedup=4.1, value_before=top))
        exports.append(make_export("pkd-skip", task, top - 0.045, seed=2, speedup=7.8, value_before=top - 0.038))
        exports.append(
            make_export(
                "pkd-skip", task, top - 0.06, seed=2, speedup=5.6, engine="onnxruntime", value_before=top - 0.038
            )
        )
    return tuple(runs), tuple(exports)


# The front, by hand


def test_dominated_models_are_not_on_the_front() -> None:
    models = make_models(("fast", 4, 80, 1), ("worse", 2, 79, 1), ("between", 2, 85, 1), ("slow", 1, 90, 1))
    assert front(models, SPEED) == ["fast", "between", "slow"]
    assert front(models[models["label"] != "between"], SPEED) == ["fast", "slow"]


def test_on_the_size_axis_smaller_is_better() -> None:
    models = make_models(("large", math.nan, 90, 100), ("wasteful", math.nan, 80, 50), ("small", math.nan, 80, 10))
    assert front(models, SIZE) == ["large", "small"]


def test_equal_models_are_both_on_the_front_and_half_ties_are_decided() -> None:
    models = make_models(("twin", 2, 85, 1), ("one", 2, 85, 1), ("as fast", 2, 84.9, 1), ("as good", 1.9, 85, 1))
    assert front(models, SPEED) == ["twin", "one"]


def test_unknown_figures_take_no_part_in_the_front() -> None:
    models = make_models(("one", 2, 85, 1), ("no speed-up", math.nan, 99, 1), ("no value", 9, math.nan, 1))
    assert front(models, SPEED) == ["one"]
    assert front(models[1:], SPEED) == []


# Models


def test_a_student_is_the_mean_over_its_seeds_in_percent() -> None:
    runs = [make_run("teacher", value=0.95), make_run(value=0.90, seed=1), make_run(value=0.92, seed=2)]
    teacher, student = row_dicts(summarize(runs))
    assert (teacher["kind"], teacher[SPEED]) == ("teacher", 1.0) and math.isnan(teacher["std"])
    assert student["value"] == pytest.approx(91.0)
    assert student["std"] == pytest.approx(100 * 0.02 / math.sqrt(2))
    assert (student["seeds"], student[SIZE], student["quality"]) == ((1, 2), 68.0, "91.0 ± 1.4")


def test_models_of_one_shape_share_the_mean_of_their_speedups() -> None:
    runs = [
        make_run("finetuned", speedup=None),
        make_run("kd", speedup=1.8),
        make_run("pkd-skip", speedup=2.2),
        make_run("tinybert", speedup=9.0, parameters=4_000_000),
        make_run("kd", task="rte", speedup=3.0),
    ]
    speedups = {(model["task"], model["method"]): model[SPEED] for model in row_dicts(summarize(runs))}
    assert [speedups["sst2", name] for name in ("finetuned", "kd", "pkd-skip")] == [pytest.approx(2.0)] * 3
    assert (speedups["sst2", "tinybert"], speedups["rte", "kd"]) == (9.0, 3.0)


def test_exports_of_one_shape_in_one_engine_share_the_mean_of_their_speedups() -> None:
    exports = [
        make_export("kd", speedup=8.0, speedup_best=2.0),
        make_export("pkd-skip", speedup=10.0, speedup_best=3.0),
        make_export("tinybert", speedup=20.0, speedup_best=None, parameters=7_000_000),
        make_export("kd", engine="onnxruntime", speedup=5.0, speedup_best=None),
    ]
    models = {(model["method"], "openvino" in model["label"]): model for model in row_dicts(summarize([], exports))}
    for method in ("kd", "pkd-skip"):
        assert models[method, True][SPEED] == pytest.approx(9.0)
        assert models[method, True]["speedup_best"] == pytest.approx(2.5)
    assert models["tinybert", True][SPEED] == 20.0 and models["kd", False][SPEED] == 5.0


def test_a_model_of_the_teachers_shape_is_as_fast_and_an_unmeasured_one_has_no_speedup() -> None:
    same = {"layers": 6, "parameters": 22_000_000}
    runs = [make_run("teacher"), make_run("kd", speedup=None, **same), make_run("pkd-skip", speedup=None)]
    assert summarize(runs)[SPEED].fillna(0).tolist() == [1.0, 1.0, 0]


def test_students_of_several_depths_are_told_apart() -> None:
    runs = [make_run("teacher"), make_run("kd"), make_run("kd", layers=4, parameters=19_000_000)]
    assert summarize(runs)["label"].tolist() == ["Teacher", "KD, 4 layers", "KD, 3 layers"]


def test_subnetworks_become_models_with_their_own_cost() -> None:
    whole = {"layers": 6, "parameters": 22_000_000, "size_mb": 88.0, "speedup": None}
    runs = [
        make_run("dynabert-finetune", value=v, seed=s, subnetworks=make_sizes(v), **whole)
        for s, v in ((1, 0.9), (2, 0.92))
    ]
    models = row_dicts(summarize([make_run("teacher"), *runs]))
    assert len(models) == 1 + 12
    smallest = models[-1]
    assert (smallest["kind"], smallest["label"]) == ("subnetwork", "DynaBERT, fine-tuned, width 0.25, depth 0.5")
    assert smallest["value"] == pytest.approx(91.0 - 4.4)
    assert smallest["std"] == pytest.approx(100 * 0.02 / math.sqrt(2))
    assert (smallest["layers"], smallest[SPEED], smallest["parameters"]) == (3, 8.0, 13_250_000)
    assert smallest[SIZE] == pytest.approx(88.0 * 13.25 / 22)


def test_a_supernet_of_another_shape_than_the_teachers_gives_no_speedup_over_it() -> None:
    whole = {"layers": 12, "parameters": 109_000_000, "subnetworks": make_sizes()}
    models = summarize([make_run("teacher"), make_run("dynabert-finetune", **whole)])
    assert models[models["kind"] == "subnetwork"][SPEED].isna().all()


def test_an_exported_model_has_the_means_of_its_seeds_and_the_value_before() -> None:
    exports = [make_export("kd"), make_export("teacher"), make_export("kd", seed=2, value=0.87)]
    models = summarize([make_run("teacher"), make_run("kd")], exports)
    exported = row_dicts(models[models["label"] == "KD, openvino int8"])[0]
    assert (exported["value"], exported["value_before"]) == (pytest.approx(88.0), pytest.approx(89.0))
    assert (exported["seeds"], exported[SPEED], exported[SIZE]) == ((1, 2), 8.0, 17.5)
    assert (exported["speedup_best"], exported["agreement"]) == (pytest.approx(2.1), pytest.approx(99))


def test_exported_sizes_of_one_supernet_are_models_of_their_own() -> None:
    sizes = [make_export("dynabert-finetune", parameters=parameters) for parameters in (13_000_000, 17_000_000)]
    assert len(summarize([], sizes)) == len(result_rows(summarize([], sizes))) == 2


def test_engines_and_precisions_are_models_of_their_own_and_a_double_seed_is_refused() -> None:
    exports = [
        make_export(),
        make_export(engine="onnxruntime"),
        make_export(precision="bfloat16", runtime_precision="float32"),
    ]
    models = summarize([], exports)
    bfloat16 = "KD, openvino bfloat16 (computes in float32)"
    assert sorted(models["label"]) == ["KD, onnxruntime int8", bfloat16, "KD, openvino int8"]
    with pytest.raises(
        ValueError, match=r"KD, openvino int8 on sst2 with 3 layers: a seed occurs twice among \[1, 1\]"
    ):
        summarize([], [make_export(), make_export()])


# The papers


@pytest.mark.parametrize("table", PAPERS, ids=lambda table: table["paper"])
def test_every_paper_names_its_place_split_and_hardware(table: Any) -> None:
    assert table["place"] and table["split"] and table["hardware"]
    for model in table["models"]:
        assert set(model["scores"]) <= set(table["reference"]["scores"])
        assert all(20 < score < 100 for score in model["scores"].values())
        assert 1 <= model.get("speedup", 1) < 20
    assert len({model["name"] for model in table["models"]}) == len(table["models"])


@pytest.mark.parametrize("text", ["3", "- paper: A", "- {paper: A, color: red}", "{", "[3]"])
def test_a_file_without_tables_of_papers_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "mine.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"mine\.yaml holds no tables of papers: "):
        read_reference_points(tmp_path / "mine.yaml")


# Drawing


def test_methods_have_different_colors_and_the_teacher_is_grey() -> None:
    colors = method_colors(["teacher", *(f"method{index}" for index in range(12))])
    assert len(set(colors.values())) == 13 and colors["teacher"] == charts.GREY


def test_the_frontier_chart_is_a_png_that_knows_its_models(tmp_path: Path) -> None:
    models = summarize(*many_results())
    models = models[models["task"] == "sst2"]
    path = frontier_chart(models, tmp_path / "deep" / "chart.png", "Title", "accuracy (%)")
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (1200, 600)
    assert is_chart_of(path, models) and not is_chart_of(path, models[1:])


def test_the_frontier_chart_shows_both_axes_error_bars_and_the_front(monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[Any] = []
    monkeypatch.setattr(charts, "_save", lambda figure, path, data: saved.append(figure) or path)
    models = summarize(*many_results())
    models = models[models["task"] == "sst2"]
    frontier_chart(models, "chart.png", "Title", "accuracy (%)")
    speed, size = saved[0].axes
    assert (speed.get_xlabel(), size.get_xlabel()) == tuple(charts.AXIS_LABELS.values())
    for panel, axis in ((speed, SPEED), (size, SIZE)):
        assert len(panel.containers) == len(models)
        assert all(container.has_yerr for container in panel.containers)
        assert len(panel.texts) == pareto_front(models, axis).sum()


def test_a_chart_without_points_is_refused(tmp_path: Path) -> None:
    models = summarize([make_run("kd", value=math.nan)])
    with pytest.raises(ValueError, match="no point to draw for"):
        frontier_chart(models, tmp_path / "chart.png", "Title", "y")
    assert not list(tmp_path.iterdir())


# The page


class Page(HTMLParser):
    """What a browser would see: whether elements close, texts of tables and drawings, headings, links."""

    VOID = ("meta", "link", "br")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.seen if name == tag]


@pytest.fixture(scope="module")
def text() -> str:
    return render_page([ReportSet("made-up", *many_results())], reference_points=PAPERS)


def without_plotly_js(text: str) -> str:
    """The page without the library, which comes first among the scripts."""
    start, end = text.index("<script>"), text.index("</script>")
    return text[:start] + text[end + len("</script>") :]


def chart_data(text: str, name: str) -> list[dict[str, Any]]:
    """The traces that the page gives to plotly for one chart, with arrays as lists."""

    def decoded(values: Any) -> Any:
        if isinstance(values, dict) and "bdata" in values:
            return np.frombuffer(base64.b64decode(values["bdata"]), values["dtype"]).tolist()
        return values

    (call,) = [part for part in text.split("Plotly.newPlot(") if re.match(rf'\s*"{re.escape(name)}"', part)]
    traces: list[dict[str, Any]] = json.JSONDecoder().raw_decode(call[call.index("[") :])[0]
    for trace in traces:
        trace |= {"x": decoded(trace["x"]), "y": decoded(trace["y"])}
        if "error_y" in trace:
            trace["error_y"] = decoded(trace["error_y"]["array"])
    return traces


def test_the_page_is_whole_and_accessible(text: str) -> None:
    page = Page(without_plotly_js(text))
    assert page.all("html") == [{"lang": "en"}] and len(page.all("title")) == 1
    # Two axes for each of two tasks, and the papers' RTE, SST-2 and MNLI.
    assert len(page.all("figure")) == 2 * 2 + 3
    names = [one["id"] for _, one in page.seen if "id" in one]
    assert len(set(names)) == len(names)
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    targets = {one["href"] for one in page.all("a")}
    assert targets <= {f"#{name}" for name in names} and len(targets) == 3


def test_the_page_loads_nothing_and_has_plotly_once(text: str) -> None:
    assert text.count("plotly.js v") == 1
    text = without_plotly_js(text)
    assert not OUTSIDE.search(text) and "cdn" not in text
    assert not {"img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in Page(text).seen}
    assert OUTSIDE.search('<img src="http://example.org">') and OUTSIDE.search("a { background: url(x) }")


def test_without_plotly_the_page_has_its_tables_and_says_what_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    monkeypatch.setitem(sys.modules, "plotly", None)
    page = render_page([ReportSet("", (make_run("kd"),))])
    assert 'plotly is missing here: <code>pip install "bertkd[report]"</code>' in page
    assert "<figure>" not in page and "<script" not in page and '<th scope="row">KD</th>' in page


def test_every_model_is_in_the_charts_and_in_the_tables(text: str) -> None:
    models = summarize(*many_results())
    assert set(models["kind"]) == {"teacher", "student", "subnetwork", "exported"}
    for task in ("rte", "sst2"):
        labels = models[models["task"] == task]["label"]
        for axis in (SPEED, SIZE):
            traces = chart_data(text, f"chart-0-{task}-{axis}")
            assert sorted(label for trace in traces for label in trace.get("hovertext", [])) == sorted(labels)
    for label in models[models["kind"] != "subnetwork"]["label"]:
        assert text.count(f'<th scope="row">{label}</th>') >= 2
    assert text.count('<th scope="col">DynaBERT, fine-tuned</th>') == 2


def test_exports_are_hollow_seeds_have_error_bars_and_the_front_is_a_step_line(text: str) -> None:
    models = summarize(*many_results())
    models = models[models["task"] == "sst2"]
    traces = chart_data(text, f"chart-0-sst2-{SPEED}")
    errors = 0
    for trace in traces[:-1]:
        errors += np.isfinite(np.array(trace["error_y"], float)).sum()
        assert trace["name"].endswith("exported") == trace["marker"]["symbol"].endswith("-open")
    assert errors == models["std"].notna().sum() > 0
    front = models[pareto_front(models, SPEED)]
    assert (traces[-1]["line"]["shape"], sorted(traces[-1]["y"])) == ("vh", pytest.approx(sorted(front["value"])))
    assert chart_data(text, f"chart-0-sst2-{SIZE}")[-1]["line"]["shape"] == "hv"


def test_papers_points_are_percentages_of_their_own_bert_base(text: str) -> None:
    (trace,) = [trace for trace in chart_data(text, "papers-sst2") if "TinyBERT4" in trace["hovertext"]]
    place = trace["hovertext"].index("TinyBERT4")
    assert (trace["x"][place], trace["y"][place]) == (9.4, pytest.approx(100 * 92.6 / 93.4))
    assert "92.6 beside BERT-base&#x27;s 93.4" in str(trace["customdata"]) and "K80" in text
    assert "papers-wnli" not in text and "92.6 (99.1%)" in text


def test_a_combined_score_is_charted_as_the_mean_of_the_numbers_in_the_table() -> None:
    metrics = {"combined_score": 0.85, "accuracy": 0.82, "f1": 0.88}
    run = make_run("kd", "mrpc", value=0.85, metric="combined_score", metrics=metrics)
    page = render_page([ReportSet("", (run,))])
    assert "mean of F1 and accuracy (%)" in page and "<td>88.0 / 82.0</td>" in page


def test_the_best_student_is_bold_in_the_page() -> None:
    page = render_page([ReportSet("", (make_run("kd", value=0.81), make_run("pkd-skip", value=0.72)))])
    assert "<td><b>81.0</b></td>" in page and "<b>72.0" not in page and "**" not in without_plotly_js(page)


def test_what_comes_from_files_is_escaped() -> None:
    evil = '<script>alert("1")</script>&amp;'
    runs = (
        make_run("teacher", task=evil),
        make_run(
            evil, task=evil, command=evil, commit=evil, metric=evil, settings={evil: evil}, versions={evil: evil}
        ),
    )
    exports = (make_export(evil, task=evil, engine=evil, conditions={evil: evil}),)
    page = render_page([ReportSet(evil, runs, exports)], title=evil)
    assert "<script>alert" not in page and 'alert("1")' not in page
    assert "&lt;script&gt;alert(&#34;1&#34;)&lt;/script&gt;&amp;amp;" in page
    Page(without_plotly_js(page))


def test_the_page_tells_how_its_figures_were_made() -> None:
    runs = (
        make_run("kd", settings={"alpha": 0.5, "output_dir": "x"}),
        make_run("pkd-skip", settings={"alpha": 0.2, "output_dir": "y", "beta": 9}),
    )
    made = without_plotly_js(render_page([ReportSet("", runs)]))
    assert '<th scope="col">output_dir' not in made
    assert re.search(r"<th[^>]*>beta</th>", made) and re.search(r"<td[^>]*>0\.2</td>", made)
    for expected in ("A CPU, 2 cores", "torch 2.13.0", "0123abc", "python recipes/pkd-skip.py --task_name sst2"):
        assert expected in made


def test_the_papers_can_be_left_out() -> None:
    runs = ReportSet("", (make_run("kd"),))
    page = without_plotly_js(render_page([runs]))
    assert "papers" not in page and "Titan RTX" not in page
    assert "Titan RTX" in render_page([runs], reference_points=PAPERS)


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one set"):
        render_page([])


def test_results_without_any_speedup_still_make_a_page() -> None:
    runs = (make_run("kd", speedup=None, value=math.nan), make_run("pkd-skip", speedup=None))
    page = without_plotly_js(render_page([ReportSet("", runs)]))
    assert "SST-2: quality against speed" not in page and "n/a" in page and "nan" not in page


# The command


def write_many(folder: Path) -> Path:
    runs, exports = many_results()
    for run in runs:
        write_json(folder / "made-up" / run.task / f"{run.method}-seed{run.seed}.json", run.to_json())
    for one in exports:
        write_json(folder / "made-up" / one.task / f"{one.method}-{one.engine}-export_result.json", one)
    write_json(folder / "made-up" / "grid" / "a.json", make_run("kd", seed=1).to_json())
    for aside in ("grid", "ablation"):
        write_json(folder / "made-up" / aside / "a-export_result.json", make_export())
    return folder


def test_the_command_writes_the_page_charts_and_tables_and_the_same_again(tmp_path: Path) -> None:
    source = write_many(tmp_path / "results")
    for name in ("one", "two"):
        arguments = ["--results_dir", str(source), "--output_dir", str(tmp_path / name)]
        report.main([*arguments, "--reference_points", str(ROOT / "benchmarks" / "papers.yaml")])
    files = sorted(path for path in (tmp_path / "one").rglob("*") if path.is_file())
    names = ["index.html", "made-up/overview.png", "report.md"]
    names += [f"made-up/{task}.{ending}" for task in ("rte", "sst2") for ending in ("md", "png")]
    assert [path.relative_to(tmp_path / "one").as_posix() for path in files] == sorted(names)
    for path in files:
        assert path.read_bytes() == (tmp_path / "two" / path.relative_to(tmp_path / "one")).read_bytes()
    assert all(f"({name})" in (tmp_path / "one" / "report.md").read_text() for name in ("made-up/sst2.md", names[1]))
    markdown = (tmp_path / "one" / "made-up" / "sst2.md").read_text()
    assert re.search(
        r"\| PKD-skip, 3 layers, openvino int8 +\| +3 \| +87\.5 \|.* 7\.8x \| +2\.1x \| +88\.2 \|", markdown
    )
    assert "Titan RTX" in (tmp_path / "one" / "index.html").read_text()


def test_exports_join_the_set_of_their_folder(tmp_path: Path) -> None:
    write_json(tmp_path / "a" / "kd.json", make_run("kd").to_json())
    write_json(tmp_path / "sst2" / "kd.json", make_run("kd").to_json())
    write_json(tmp_path / "a" / "x-export_result.json", make_export(engine="openvino"))
    write_json(tmp_path / "sst2" / "export_result.json", make_export(engine="onnxruntime"))
    sets = read_sets(tmp_path)
    assert [(one.name, [export.engine for export in one.exports]) for one in sets] == [
        ("", ["onnxruntime"]), ("a", ["openvino"]),
    ]  # fmt: skip


def test_what_commands_left_in_folders_of_their_own_is_one_set(tmp_path: Path) -> None:
    for name, method in (
        ("teacher", "teacher"),
        ("mine", "kd"),
        ("pkd/seed-1", "pkd-skip"),
        ("a/seed-1/ms-5", "pruned"),
    ):
        write_json(tmp_path / name / "results.json", make_run(method).to_json())
    write_json(tmp_path / "mine-int8" / "export_result.json", make_export())
    (one,) = read_sets(tmp_path)
    assert one.name == "" and len(one.runs) == 4 and len(one.exports) == 1

    # A name that only begins like that of a seed is a set's.
    write_json(tmp_path / "seed-corpus" / "mine" / "results.json", make_run("kd").to_json())
    assert [one.name for one in read_sets(tmp_path)] == ["", "seed-corpus"]


@pytest.mark.parametrize("content", ["{", "3", "[]", '{"method": "kd"}'])
def test_a_broken_export_is_named(tmp_path: Path, content: str) -> None:
    write_json(tmp_path / "kd.json", make_run("kd").to_json())
    (tmp_path / "bad-export_result.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad-export_result\.json is no result of an export: "):
        read_sets(tmp_path)


def test_searches_alone_make_no_report(tmp_path: Path) -> None:
    write_json(tmp_path / "grid" / "a.json", make_run("kd").to_json())
    with pytest.raises(ValueError, match="has only runs of searches and ablations"):
        report.main(["--results_dir", str(tmp_path), "--output_dir", str(tmp_path / "report")])


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="missing does not exist"):
        report.main(["--results_dir", str(tmp_path / "missing")])


def test_the_committed_results_are_all_in_their_report() -> None:
    folder = ROOT / "docs" / "results"
    sets = read_sets(folder)
    page = without_plotly_js(render_page(sets))
    markdown = "\n".join(markdown_report(sets, Path("index.md"), "docs/results").pages.values())
    files = [path for path in result_files(folder) if not {"grid", "ablation"} & set(path.parts)]
    shown = [read_result(path) for path in files]
    assert all(any(one in part.runs for part in sets) for one in shown)
    assert {one.method for one in shown} >= {"teacher", "finetuned", "kd", "pkd-skip", "pkd-last"}
    for method in {one.method for one in shown}:
        name = html.escape(method_label(method))
        # Plotly writes a slash so that no tag can end in a script.
        in_charts = name.replace("/", r"\u002f")
        assert f'"{in_charts}' in page and re.search(rf'<th scope="(row|col)">{re.escape(name)}', page)
        assert re.search(rf"\| {re.escape(method_label(method))}", markdown)
    assert not OUTSIDE.search(page)


# A real browser


def browser() -> str:
    found = [path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))]
    if not found:
        pytest.skip("needs a browser: chromium, chromium-browser or google-chrome is not installed")
    return found[0]


def browse(page: Path, profile: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [
        browser(),
        *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
        *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
        *("--enable-logging=stderr", f"--user-data-dir={profile}", *arguments, page.as_uri()),
    ]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize(
    "scheme", ["--blink-settings=preferredColorScheme=1", "--blink-settings=preferredColorScheme=0"]
)
@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_without_errors(tmp_path: Path, text: str, width: int, scheme: str) -> None:
    page, shot = tmp_path / "index.html", tmp_path / "shot.png"
    page.write_text(text, encoding="utf-8")
    made = browse(page, tmp_path / "profile", f"--window-size={width},1600", f"--screenshot={shot}", scheme)
    assert "CONSOLE" not in made.stderr, made.stderr
    # A page that did not render is of one color, which takes a few kilobytes.
    assert struct.unpack(">II", shot.read_bytes()[16:24])[1] == 1600 and shot.stat().st_size > 40_000
    seen = browse(page, tmp_path / "other", "--dump-dom")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    assert seen.stdout.count("<figure>") == text.count("<figure>") == 7
    assert seen.stdout.count('class="main-svg"') >= 7
    assert "DynaBERT, fine-tuned, width 0.25, depth 0.5" in seen.stdout


def test_the_browser_test_would_see_an_error(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<!DOCTYPE html><script>undefinedName()</script>", encoding="utf-8")
    assert "CONSOLE" in browse(page, tmp_path / "profile", "--dump-dom").stderr
