"""The report: points, the Pareto front, the papers' figures, charts, the page, and how a browser sees it."""

from __future__ import annotations

import html
import math
import re
import shutil
import struct
import subprocess
import sys
from html.parser import HTMLParser
from importlib import util
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from bertkd.atomic import write_json
from bertkd.records import (
    SIZE,
    SPEED,
    ExportResult,
    Point,
    ReportSet,
    RunResult,
    SubnetworkResult,
    all_points,
    frontier_chart,
    is_chart_of,
    method_label,
    pareto_front,
    read_results,
    render_markdown,
    render_page,
)
from bertkd.records.charts import Box, best_place, greyed, method_styles, side_by_side
from bertkd.records.frontier import best_students, export_points, front_line, joins, paper_points
from bertkd.records.papers import PAPERS, TINYBERT

ROOT = Path(__file__).parents[2]
ENVIRONMENT: dict[str, Any] = {
    "versions": {"python": "3.12.1", "torch": "2.13.0"},
    "commit": "0123abc",
    "hardware": {"cpu": "A CPU", "cores": 2, "threads": 2, "memory_gib": 8.0, "gpu": None},
    "settings": {"alpha": 0.7, "learning_rate": 1e-4, "output_dir": "somewhere", "dynabert": {"stage": "width"}},
}
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


def make_point(label: str, speedup: float | None, value: float, size: float | None = None, **changes: Any) -> Point:
    fields: dict[str, Any] = {"task": "sst2", "method": label, "layers": 3, "kind": "student"}
    return Point(label=label, value=value, speedup=speedup, size_mb=size, **(fields | changes))


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


def test_dominated_points_are_not_on_the_front() -> None:
    slow, fast, worse = make_point("slow", 1.0, 90.0), make_point("fast", 4.0, 80.0), make_point("worse", 2.0, 79.0)
    between = make_point("between", 2.0, 85.0)
    assert pareto_front([fast, worse, between, slow], SPEED) == [slow, between, fast]
    assert pareto_front([fast, worse, slow], SPEED) == [slow, fast]


def test_on_the_size_axis_smaller_is_better() -> None:
    large, small = make_point("large", None, 90.0, 100.0), make_point("small", None, 80.0, 10.0)
    wasteful = make_point("wasteful", None, 80.0, 50.0)
    assert pareto_front([large, wasteful, small], SIZE) == [small, large]


def test_equal_points_are_both_on_the_front_and_half_ties_are_decided() -> None:
    one, twin = make_point("one", 2.0, 85.0), make_point("twin", 2.0, 85.0)
    as_fast, as_good = make_point("as fast", 2.0, 84.9), make_point("as good", 1.9, 85.0)
    assert pareto_front([twin, one, as_fast, as_good], SPEED) == [one, twin]


def test_unknown_figures_and_papers_take_no_part_in_the_front() -> None:
    one = make_point("one", 2.0, 85.0)
    others = [
        make_point("no speed-up", None, 99.0),
        make_point("no value", 9.0, math.nan),
        make_point("paper", 9.0, 99.0, kind="paper"),
    ]
    assert pareto_front([one, *others], SPEED) == [one]
    assert pareto_front(others, SPEED) == []


def test_the_front_line_shows_the_best_value_at_each_speed_and_within_each_size() -> None:
    fronted = [make_point("slow", 1.0, 90.0, 100.0), make_point("fast", 4.0, 80.0, 25.0)]
    assert front_line(pareto_front(fronted, SPEED), SPEED, 0.5, 5.0, 70.0) == [
        (0.5, 90.0), (1.0, 90.0), (1.0, 80.0), (4.0, 80.0), (4.0, 70.0),
    ]  # fmt: skip
    assert front_line(pareto_front(fronted, SIZE), SIZE, 10.0, 120.0, 70.0) == [
        (25.0, 70.0), (25.0, 80.0), (100.0, 80.0), (100.0, 90.0), (120.0, 90.0),
    ]  # fmt: skip
    assert front_line([], SPEED, 0.0, 1.0, 0.0) == []


# Points


def test_a_student_is_the_mean_over_its_seeds_in_percent() -> None:
    points = all_points([make_run("teacher", value=0.95), make_run(value=0.90, seed=1), make_run(value=0.92, seed=2)])
    teacher, student = points
    assert (teacher.kind, teacher.speedup, teacher.error) == ("teacher", 1.0, None)
    assert student.value == pytest.approx(91.0)
    assert student.error == pytest.approx(100 * 0.02 / math.sqrt(2))
    assert (student.seeds, student.size_mb, student.metrics) == ((1, 2), 68.0, "91.0 ± 1.4")


def test_models_of_one_shape_share_the_mean_of_their_speedups() -> None:
    runs = [
        make_run("finetuned", speedup=None),
        make_run("kd", speedup=1.8),
        make_run("pkd-skip", speedup=2.2),
        make_run("tinybert", speedup=9.0, parameters=4_000_000),
        make_run("kd", task="rte", speedup=3.0),
    ]
    speedups = {(one.task, one.method): one.speedup for one in all_points(runs)}
    assert [speedups["sst2", name] for name in ("finetuned", "kd", "pkd-skip")] == [pytest.approx(2.0)] * 3
    assert (speedups["sst2", "tinybert"], speedups["rte", "kd"]) == (9.0, 3.0)


def test_exports_of_one_shape_in_one_engine_share_the_mean_of_their_speedups() -> None:
    exports = [
        make_export("kd", speedup=8.0, speedup_best=2.0),
        make_export("pkd-skip", speedup=10.0, speedup_best=3.0),
        make_export("tinybert", speedup=20.0, speedup_best=None, parameters=7_000_000),
        make_export("kd", engine="onnxruntime", speedup=5.0, speedup_best=None),
    ]
    points = {(one.method, "openvino" in one.label): one for one in export_points(exports)}
    for method in ("kd", "pkd-skip"):
        assert points[method, True].speedup == pytest.approx(9.0)
        assert "2.50x over the teacher in its fastest engine" in points[method, True].note
        assert "speed-ups of this shape: 8.00 to 10.00" in points[method, True].note
    assert points["tinybert", True].speedup == 20.0 and points["kd", False].speedup == 5.0


def test_a_model_of_the_teachers_shape_is_as_fast_and_an_unmeasured_one_has_no_speedup() -> None:
    same = {"layers": 6, "parameters": 22_000_000}
    runs = [make_run("teacher"), make_run("kd", speedup=None, **same), make_run("pkd-skip", speedup=None)]
    assert [one.speedup for one in all_points(runs)] == [1.0, 1.0, None]


def test_students_of_several_depths_are_told_apart() -> None:
    runs = [make_run("teacher"), make_run("kd"), make_run("kd", layers=4, parameters=19_000_000)]
    assert [one.label for one in all_points(runs)] == ["Teacher", "KD, 3 layers", "KD, 4 layers"]


def test_subnetworks_become_points_with_their_own_cost() -> None:
    whole = {"layers": 6, "parameters": 22_000_000, "size_mb": 88.0, "speedup": None}
    runs = [
        make_run("dynabert-finetune", value=v, seed=s, subnetworks=make_sizes(v), **whole)
        for s, v in ((1, 0.9), (2, 0.92))
    ]
    points = all_points([make_run("teacher"), *runs])
    assert len(points) == 1 + 12
    smallest = points[-1]
    assert (smallest.kind, smallest.label) == ("subnetwork", "DynaBERT, fine-tuned, width 0.25, depth 0.5")
    assert smallest.value == pytest.approx(91.0 - 4.4) and smallest.error == pytest.approx(100 * 0.02 / math.sqrt(2))
    assert (smallest.layers, smallest.speedup, smallest.parameters) == (3, 8.0, 13_250_000)
    assert smallest.size_mb == pytest.approx(88.0 * 13.25 / 22)


def test_a_network_of_another_shape_than_the_teachers_gives_no_speedup_over_it() -> None:
    whole = {"layers": 12, "parameters": 109_000_000, "subnetworks": make_sizes()}
    points = all_points([make_run("teacher"), make_run("dynabert-finetune", **whole)])
    assert {one.speedup for one in points if one.kind == "subnetwork"} == {None}
    assert "not the teacher's shape" in points[-1].note


def test_an_exported_model_is_joined_to_the_one_it_was_made_from() -> None:
    runs = [
        make_run("teacher"),
        make_run("kd"),
        make_run("kd", layers=4, parameters=19_000_000),
        make_run("kd", task="rte"),
    ]
    exports = [
        make_export("kd"),
        make_export("teacher"),
        make_export("pkd-skip"),
        make_export("kd", seed=2, value=0.87),
    ]
    pairs = joins(all_points(runs, exports))
    assert [(origin.task, origin.label, exported.label) for origin, exported in pairs] == [
        ("sst2", "Teacher", "Teacher, openvino int8"),
        ("sst2", "KD, 3 layers", "KD, 3 layers, openvino int8"),
    ]
    exported = pairs[1][1]
    assert (exported.value, exported.before, exported.seeds) == (pytest.approx(88.0), pytest.approx(89.0), (1, 2))
    assert (exported.speedup, exported.size_mb) == (8.0, 17.5)
    assert "2.10x over the teacher in its fastest engine" in exported.note


def test_an_exported_size_is_joined_to_the_size_with_as_many_parameters() -> None:
    whole = {"layers": 6, "parameters": 22_000_000, "subnetworks": make_sizes()}
    wanted = make_sizes()[2]
    exported = make_export("dynabert-finetune", layers=wanted.layers, parameters=wanted.parameters)
    ((origin, _),) = joins(all_points([make_run("dynabert-finetune", **whole)], [exported]))
    assert "width 0.5, depth 1" in origin.label


def test_engines_and_precisions_are_points_of_their_own_and_a_double_seed_is_refused() -> None:
    exports = [
        make_export(),
        make_export(engine="onnxruntime"),
        make_export(precision="bfloat16", runtime_precision="float32"),
    ]
    assert [one.label for one in all_points([], exports)] == [
        "KD, onnxruntime int8", "KD, openvino bfloat16", "KD, openvino int8",
    ]  # fmt: skip
    assert "computes in float32" in all_points([], exports)[1].note
    with pytest.raises(ValueError, match=r"KD, openvino int8 on sst2: a seed was exported twice, among \[1, 1\]"):
        all_points([], [make_export(), make_export()])


def test_the_best_student_is_smaller_than_the_teacher() -> None:
    whole = {"layers": 6, "parameters": 22_000_000, "subnetworks": make_sizes(0.99)}
    runs = [make_run("teacher", value=0.95), make_run("kd", value=0.90), make_run("dynabert-finetune", **whole)]
    (best,) = best_students(all_points(runs, [make_export(value=0.999)]))
    assert best.label == "DynaBERT, fine-tuned, width 0.75, depth 1"
    assert best_students(all_points([make_run("teacher")])) == []


def test_students_that_are_equal_at_the_precision_shown_are_all_the_best() -> None:
    runs = [make_run("kd", value=0.9001), make_run("pkd-skip", value=0.9003), make_run("pkd-last", value=0.899)]
    assert [one.method for one in best_students(all_points(runs))] == ["kd", "pkd-skip"]
    assert "<td>KD; PKD-skip</td>" in render_page([ReportSet("", tuple(runs))])


# The papers


def test_papers_points_are_percentages_of_their_own_bert_base() -> None:
    found = {one.label: one for one in paper_points("sst2", [TINYBERT])}
    small = found["TinyBERT4"]
    assert small.value == pytest.approx(100 * 92.6 / 93.4) and (small.speedup, small.parameters) == (9.4, 14_500_000)
    assert small.note.startswith("92.6 beside BERT-base's 93.4") and "K80" in small.note
    assert "BERT6-PKD" not in {one.label for one in paper_points("cola", [TINYBERT])}
    assert paper_points("wnli") == []


@pytest.mark.parametrize("table", PAPERS, ids=lambda table: table.paper)
def test_every_paper_names_its_place_split_and_hardware(table: Any) -> None:
    assert table.place and table.split and table.hardware
    for model in table.models:
        assert set(model.scores) <= set(table.reference.scores)
        assert all(20 < score < 100 for score in model.scores.values())
        assert model.speedup is None or 1 <= model.speedup < 20
    assert len({model.name for model in table.models}) == len(table.models)


# Drawing


def test_close_points_stand_side_by_side_and_the_front_stays() -> None:
    def rooms(*places: tuple[float, float]) -> list[Box]:
        return [Box(x - 8, y - 10, x + 8, y + 10) for x, y in places]

    assert side_by_side(rooms((10, 50), (100, 50), (103, 55)), 16, [False] * 3) == [0.0, -8.0, 8.0]
    assert side_by_side(rooms((100, 50), (100, 50), (100, 50)), 16, [False, False, True]) == [-32.0, -16.0, 0.0]
    # One above the other, both can be seen.
    assert side_by_side(rooms((100, 50), (100, 90)), 16, [False, False]) == [0.0, 0.0]


def test_a_label_finds_a_free_place_or_none() -> None:
    frame = Box(0, 0, 300, 200)
    place = best_place(150, 100, 60, 12, [Box(140, 90, 160, 110)], frame, [])
    assert place is not None and not place.overlaps(Box(140, 90, 160, 110))
    assert best_place(150, 100, 60, 12, [frame], frame, []) is None


def test_methods_look_different_and_dominated_ones_are_grey() -> None:
    styles = method_styles(["teacher", *(f"method{index}" for index in range(48))])
    assert len(set(styles.values())) == 49
    red, _, blue = (int(greyed("#0072B2")[at : at + 2], 16) for at in (1, 3, 5))
    assert blue - red < 0xB2 / 2


def test_the_frontier_chart_is_a_png_that_knows_its_points(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    points = [one for one in all_points(*many_results()) if one.task == "sst2"]
    path = frontier_chart(points, tmp_path / "deep" / "chart.png", "Title", SPEED, "accuracy (%)")
    assert struct.unpack(">II", path.read_bytes()[16:24]) == (900, 600)
    assert is_chart_of(path, points) and not is_chart_of(path, points[1:])


def test_a_chart_without_points_on_its_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no point to draw for"):
        frontier_chart([make_point("a", None, 90.0)], tmp_path / "chart.png", "Title", SPEED, "y")
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
    return render_page([ReportSet("made-up", *many_results())])


def test_the_page_is_whole_and_accessible(text: str) -> None:
    page = Page(text)
    assert page.all("html") == [{"lang": "en"}] and len(page.all("title")) > 1
    charts = [one for one in page.all("svg") if one.get("role") == "img"]
    # Two axes and two shapes for each of two tasks, and the papers' RTE, SST-2 and MNLI in two shapes.
    assert len(charts) == 2 * 2 * 2 + 3 * 2 and all(one["aria-label"] for one in charts)
    assert all(one.get("role") == "img" or one.get("aria-hidden") for one in page.all("svg"))
    assert all(one.get("scope") in ("col", "row") for one in page.all("th"))
    targets = {one["href"] for one in page.all("a")}
    assert targets <= {f"#{one['id']}" for _, one in page.seen if "id" in one} and len(targets) == 4


def test_the_page_loads_nothing(text: str) -> None:
    assert not OUTSIDE.search(text)
    assert not {"script", "img", "iframe", "object", "embed", "base", "form"} & {tag for tag, _ in Page(text).seen}
    assert OUTSIDE.search('<img src="http://example.org">') and OUTSIDE.search("a { background: url(x) }")


def test_every_point_is_in_the_charts_and_in_the_table(text: str) -> None:
    text = text.split('id="papers"')[0]
    points = all_points(*many_results())
    assert {one.kind for one in points} == {"teacher", "student", "subnetwork", "exported"}
    for one in points:
        # A title in both shapes of both charts; a row of the table.
        assert text.count(f"<title>{one.label}\n") == 2 * 2 * 2
        assert text.count(f'<th scope="row">{one.label}</th>') == 2


def test_dominated_points_are_pale_and_exports_are_joined(text: str) -> None:
    drawn = re.findall(r'<svg class="wide"[^>]*aria-label="SST-2: quality against speed\..*?</svg>', text, re.DOTALL)
    assert len(drawn) == 1
    points = [one for one in all_points(*many_results()) if one.task == "sst2"]
    front = pareto_front(points, SPEED)
    for one in points:
        (found,) = re.findall(rf'<g class="(\w+)"><title>{re.escape(one.label)}\n', drawn[0])
        assert found == ("full" if one in front else "pale")
    assert {one.label for one in front} >= {"Teacher", "Teacher, openvino int8"} and len(front) < len(points) / 2
    assert drawn[0].count('class="join"') == 3 and drawn[0].count('class="front"') == 1


def test_labels_in_the_drawings_do_not_overlap_and_stay_inside(text: str) -> None:
    for width, drawing in re.findall(r'viewBox="0 0 (\d+) \d+" role="img"[^>]*>(.*?)</svg>', text, re.DOTALL):
        found = re.findall(
            r'<text x="([\d.-]+)" y="([\d.-]+)" text-anchor="middle" class="label">(.*?)</text>', drawing
        )
        boxes = [
            Box(float(x) - 3.45 * len(name), float(y) - 11.5, float(x) + 3.45 * len(name), float(y) + 3.5)
            for x, y, name in found
        ]
        assert boxes
        assert all(box.x0 >= 0 and box.x1 <= float(width) for box in boxes)
        # Places are rounded to a tenth of a pixel.
        assert not any(
            Box(a.x0 + 0.2, a.y0 + 0.2, a.x1 - 0.2, a.y1 - 0.2).overlaps(b) for a, b in combinations(boxes, 2)
        )


def test_the_overview_names_the_best_student_and_what_it_keeps() -> None:
    runs = (make_run("teacher", value=0.90), make_run("kd", value=0.81), make_run("pkd-skip", value=0.72))
    page = render_page([ReportSet("", runs)])
    overview = page.split("The best student of each task")[2].split("</table>")[0]
    cells = re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", overview.split("<tbody>")[1])
    assert cells == ["SST-2", "accuracy", "90.0", "KD", "3", "81.0", "-9.0", "90.0%", "2.00x", "68.0 MB"]


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
    assert "<script" not in page and 'alert("1")' not in page
    assert "&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt;&amp;amp;" in page
    Page(page)


def test_settings_that_differ_have_a_column_and_the_others_one_sentence() -> None:
    runs = (
        make_run("kd", settings={"alpha": 0.5, "epochs": 3.0, "output_dir": "x"}),
        make_run("pkd-skip", settings={"alpha": 0.2, "epochs": 3.0, "output_dir": "y", "group": {"beta": 9}}),
    )
    made = render_page([ReportSet("", runs)]).split('id="made"')[1]
    assert "The same in all runs: epochs 3." in made and "output_dir" not in made
    assert re.search(r"<th[^>]*>group\.beta</th>", made) and re.search(r"<td[^>]*>0\.2</td>", made)
    for expected in ("A CPU, 2 cores", "torch 2.13.0", "0123abc", "python recipes/pkd-skip.py --task_name sst2"):
        assert expected in made


def test_the_papers_can_be_left_out() -> None:
    page = render_page([ReportSet("", (make_run("kd"),))], papers=())
    assert "papers" not in page and "Titan RTX" not in page
    assert "Titan RTX" in render_page([ReportSet("", (make_run("kd"),))])


def test_a_report_of_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one set"):
        render_page([])


def test_results_without_any_speedup_still_make_a_page() -> None:
    page = render_page(
        [ReportSet("", (make_run("kd", speedup=None, value=math.nan), make_run("pkd-skip", speedup=None)))]
    )
    assert "quality against speed" not in page and "n/a" in page and "nan" not in page


# The recipe


@pytest.fixture(scope="module")
def recipe() -> ModuleType:
    sys.path.insert(0, str(ROOT / "recipes"))
    spec = util.spec_from_file_location("report_recipe", ROOT / "recipes" / "report.py")
    assert spec is not None and spec.loader is not None
    module = util.module_from_spec(spec)
    spec.loader.exec_module(module)
    sys.path.remove(str(ROOT / "recipes"))
    return module


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


def test_the_recipe_writes_the_page_charts_and_tables_and_the_same_again(tmp_path: Path, recipe: ModuleType) -> None:
    pytest.importorskip("matplotlib")
    source = write_many(tmp_path / "results")
    for name in ("one", "two"):
        recipe.main(["--results_dir", str(source), "--output_dir", str(tmp_path / name)])
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    charts = [f"made-up-{task}-{word}.png" for task in ("rte", "sst2") for word in ("size", "speed")]
    assert files == sorted(["index.html", "report.md", *charts])
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    markdown = (tmp_path / "one" / "report.md").read_text()
    assert all(f"]({chart})" in markdown for chart in charts)
    assert re.search(r"\| PKD-skip, 3 layers, openvino int8 +\| +3 \| +87\.5 \| +88\.2 \|", markdown)
    assert "38 runs, 6 exported models, 6 methods, 2 tasks" in (tmp_path / "one" / "index.html").read_text()


def test_exports_join_the_set_of_their_folder(tmp_path: Path, recipe: ModuleType) -> None:
    write_json(tmp_path / "a" / "kd.json", make_run("kd").to_json())
    write_json(tmp_path / "sst2" / "kd.json", make_run("kd").to_json())
    write_json(tmp_path / "a" / "x-export_result.json", make_export(engine="openvino"))
    write_json(tmp_path / "sst2" / "export_result.json", make_export(engine="onnxruntime"))
    sets = recipe.read_report_sets(tmp_path)
    assert [(one.name, [export.engine for export in one.exports]) for one in sets] == [
        ("", ["onnxruntime"]), ("a", ["openvino"]),
    ]  # fmt: skip


def test_what_recipes_left_in_folders_of_their_own_is_one_set(tmp_path: Path, recipe: ModuleType) -> None:
    for name, method in (("teacher", "teacher"), ("mine", "kd"), ("pkd/seed-1", "pkd-skip")):
        write_json(tmp_path / name / "results.json", make_run(method).to_json())
    write_json(tmp_path / "mine-int8" / "export_result.json", make_export())
    (one,) = recipe.read_report_sets(tmp_path)
    assert one.name == "" and len(one.runs) == 3 and len(one.exports) == 1


@pytest.mark.parametrize("content", ["{", "3", "[]", '{"method": "kd"}'])
def test_a_broken_export_is_named(tmp_path: Path, recipe: ModuleType, content: str) -> None:
    write_json(tmp_path / "kd.json", make_run("kd").to_json())
    (tmp_path / "bad-export_result.json").write_text(content)
    with pytest.raises(ValueError, match=r"bad-export_result\.json is no result of an export: "):
        recipe.read_report_sets(tmp_path)


def test_a_users_mistake_is_one_sentence(tmp_path: Path, recipe: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("BERTKD_TRACEBACK", raising=False)
    monkeypatch.setattr(sys, "argv", ["recipes/report.py", "--results_dir", str(tmp_path / "missing")])
    with pytest.raises(SystemExit, match=r"^report\.py: .*missing does not exist"):
        recipe.run_script(recipe.main)


def test_the_committed_results_are_all_in_their_report(recipe: ModuleType) -> None:
    folder = ROOT / "docs" / "results"
    sets = recipe.read_report_sets(folder)
    page, markdown = render_page(sets), render_markdown(sets, {})
    shown = [one for one in read_results(folder) if any(one in part.runs for part in sets)]
    assert {one.method for one in shown} >= {"teacher", "finetuned", "kd", "pkd-skip", "pkd-last"}
    for method in {one.method for one in shown}:
        name = html.escape(method_label(method))
        assert f"<title>{name}" in page and f'<th scope="row">{name}' in page
        assert f"| {method_label(method)}" in markdown
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


@pytest.mark.parametrize("width", [1280, 390])
def test_a_browser_shows_the_page_without_errors(tmp_path: Path, text: str, width: int) -> None:
    page, shot = tmp_path / "index.html", tmp_path / "shot.png"
    page.write_text(text, encoding="utf-8")
    made = browse(page, tmp_path / "profile", f"--window-size={width},1600", f"--screenshot={shot}")
    assert "CONSOLE" not in made.stderr, made.stderr
    # A page that did not render is of one color, which takes a few kilobytes.
    assert struct.unpack(">II", shot.read_bytes()[16:24])[1] == 1600 and shot.stat().st_size > 40_000
    seen = browse(page, tmp_path / "other", "--dump-dom")
    assert "CONSOLE" not in seen.stderr, seen.stderr
    assert seen.stdout.count("<figure>") == text.count("<figure>") == 7
    assert "DynaBERT, fine-tuned, width 0.25, depth 0.5" in seen.stdout


def test_the_browser_test_would_see_an_error(tmp_path: Path) -> None:
    page = tmp_path / "index.html"
    page.write_text("<!DOCTYPE html><script>undefinedName()</script>", encoding="utf-8")
    assert "CONSOLE" in browse(page, tmp_path / "profile", "--dump-dom").stderr
