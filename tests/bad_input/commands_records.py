"""Lines that read records, reports and tables: files that are broken, or are others than they are taken for."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from bad_input.cases import CommandCase, Place
from bad_input.conftest import TRAINING

KIND = "records and reports"
TASK = "--task_name sst2 --glue_dir {glue} --max_train_samples 16 --max_eval_samples 16 --use_cpu --output_dir out"
REPORT = "report --results_dir runs --output_dir out"
COMPARE = "bench {teacher} --engines pytorch --precisions float32 --repeats 1 --output_dir out --compare bench.json"
OF_TEACHER = "--method kd --teacher_model_name_or_path {teacher}"
COMPRESS = f"compress {OF_TEACHER} --engine pytorch --precision float32 --budget 9 {TASK}"
SHRINK = f"shrink --model_name_or_path {{teacher}} --share_layers 2 --record figures.json {TASK}"


def record(**values: Any) -> Callable[[Place], None]:
    """Puts the teacher's record into the folder `runs`, with other values; None takes one out."""

    def prepare(place: Place) -> None:
        content = json.loads((place.teacher / "results.json").read_text()) | values
        (place.dir / "runs").mkdir()
        kept = {key: value for key, value in content.items() if value is not None}
        (place.dir / "runs" / "results.json").write_text(json.dumps(kept))

    return prepare


def with_broken_export(place: Place) -> None:
    record()(place)
    (place.dir / "runs" / "export_result.json").write_text("{")


def started_again(name: str, content: str) -> Callable[[Place], None]:
    """Puts a copy of the supernet's stage into the output folder, and replaces a file of it."""

    def prepare(place: Place) -> None:
        stage = place.dir / "out" / "width"
        shutil.copytree(place.supernet, stage)
        (stage / name).write_text(content)
        (stage / "model.safetensors").unlink()

    return prepare


def copied_model(name: str, content: str) -> Callable[[Place], None]:
    """Puts a copy of the supernet into the folder `bad`, and replaces a file of it."""

    def prepare(place: Place) -> None:
        shutil.copytree(place.supernet, place.dir / "bad")
        Path(place.dir / "bad" / name).write_text(content)

    return prepare


def bad_record(name: str, says: str, **values: Any) -> CommandCase:
    return CommandCase(KIND, name, REPORT, says, prepare=record(**values))


CASES = [
    # Results files.
    CommandCase(
        KIND, "a record that is cut off", REPORT, r"results\.json is no .*broken JSON", {"runs/results.json": "{"}
    ),
    CommandCase(KIND, "a record that is empty", REPORT, r"results\.json is empty", {"runs/results.json": ""}),
    CommandCase(KIND, "a record that is a list", REPORT, r"a JSON object|schema", {"runs/results.json": "[]"}),
    CommandCase(
        KIND, "a record in another encoding", REPORT, r"no JSON file in UTF-8", {"runs/results.json": b"\xff\xfe"}
    ),
    bad_record("a record of another version", r"schema is 99, this version of bertkd reads schema 1", schema=99),
    bad_record("a record without its metric", r"missing keys: metric", metric=None),
    bad_record("a record with a key that nobody knows", r"unknown keys: accuracy", accuracy=0.9),
    bad_record("a record whose value is a text", r"value should be a float, it is 'high'", value="high"),
    bad_record("a record whose seed is a truth", r"seed should be a int, it is True", seed=True),
    bad_record("a record whose metrics are a list", r"metrics should be a dict", metrics=[0.9]),
    bad_record("a size in a record that lacks its width", r"missing keys:.* width", subnetworks=[{"depth": 1.0}]),
    CommandCase(KIND, "no folder of results", REPORT, r"runs does not exist; give a results file or a folder"),
    CommandCase(
        KIND, "a folder without results", REPORT, r"no results file \(\*\.json\) below runs", {"runs/notes.txt": ""}
    ),
    CommandCase(
        KIND,
        "an export's record that is cut off",
        REPORT,
        r"export_result\.json is no result of an export",
        prepare=with_broken_export,
    ),
    CommandCase(
        KIND,
        "a supernet's record that is cut off",
        "extract --model_name_or_path bad --width 0.5 --output_dir out",
        r"bad/results\.json is no results file",
        prepare=copied_model("results.json", "{"),
    ),
    CommandCase(
        KIND,
        "a stage's record that is a list",
        f"dynabert --teacher_model_name_or_path {{teacher}} --ignore_weak_teacher --stages width {TRAINING} "
        "--glue_dir {glue} --output_dir out",
        r"results\.json is no results file",
        prepare=started_again("results.json", "[]"),
    ),
    # Tables of papers.
    CommandCase(
        KIND,
        "papers in a file that is not there",
        "report --results_dir {teacher} --output_dir out --reference_points p.yaml",
        r"Cannot read p\.yaml \(No such file",
    ),
    CommandCase(
        KIND,
        "papers in broken YAML",
        "report --results_dir {teacher} --output_dir out --reference_points p.yaml",
        r"p\.yaml holds no tables of papers: while parsing",
        {"p.yaml": "a: ["},
    ),
    CommandCase(
        KIND,
        "papers that are one text",
        "report --results_dir {teacher} --output_dir out --reference_points p.yaml",
        r"p\.yaml holds no tables of papers: a list of tables",
        {"p.yaml": "hello"},
    ),
    # Measurements and choices that a command reads again.
    CommandCase(
        KIND, "a measurement that is cut off", COMPARE, r"bench\.json is broken JSON", {"bench.json": '{"rows'}
    ),
    CommandCase(KIND, "a measurement that is none", COMPARE, r"no bench\.json of this command", {"bench.json": "[]"}),
    CommandCase(
        KIND,
        "a measurement of another version",
        COMPARE,
        r"schema 7; this version reads 1",
        {"bench.json": '{"schema": 7, "rows": []}'},
    ),
    CommandCase(KIND, "a measurement that is not there", COMPARE, r"Cannot read bench\.json: No such file"),
    CommandCase(
        KIND,
        "rows without a latency",
        COMPARE,
        r"a row has no model, way, p50_ms",
        {"bench.json": '{"schema": 1, "rows": [{}]}'},
    ),
    CommandCase(
        KIND, "a chosen size that is cut off", COMPRESS, r"size\.json is broken JSON", {"out/size.json": '{"asked"'}
    ),
    CommandCase(
        KIND, "a chosen size that is none", COMPRESS, r"does not hold the choice of a size", {"out/size.json": "[1]"}
    ),
    CommandCase(KIND, "figures that are cut off", SHRINK, r"figures\.json is broken JSON", {"figures.json": "["}),
    CommandCase(
        KIND,
        "figures of something else",
        SHRINK,
        r"figures\.json holds something else than figures of `bertkd shrink`",
        {"figures.json": '{"version": 1}'},
    ),
    CommandCase(
        KIND,
        "an export whose manifest is cut off",
        "bench e --engines pytorch --output_dir out",
        r"e/export\.json is broken JSON",
        {"e/export.json": "{"},
    ),
    CommandCase(
        KIND,
        "an export for an engine that nobody knows",
        "bench e --engines pytorch --output_dir out",
        r"format 'tensorrt', which bertkd does not run",
        {"e/export.json": '{"export_format": "tensorrt"}'},
    ),
    CommandCase(
        KIND, "nothing to measure", "bench nowhere --output_dir out", r"nowhere is no model's folder, nor one of"
    ),
    CommandCase(
        KIND,
        "one model twice",
        "bench {teacher} {teacher} --engines pytorch --precisions float32 --repeats 1 --output_dir out",
        r"is there twice: name each model once",
    ),
    CommandCase(
        KIND,
        "two models for one task",
        "submit --models sst2=a sst2=b --glue_dir {glue} --output_dir out",
        r"names two models for sst2, a and b",
    ),
    CommandCase(KIND, "a task that has no leaderboard", "submit --models ax=a --output_dir out", r"write TASK=FOLDER"),
    CommandCase(
        KIND,
        "a model of another task to submit",
        "submit --models rte={teacher} --glue_dir {glue} --output_dir out",
        r"No file for rte|RTE",
    ),
    CommandCase(
        KIND,
        "no labels that a leaderboard takes",
        "submit --models sst2={model} --glue_dir {glue} --output_dir out",
        r"LABEL_0, LABEL_1\) do not match those of the task sst2.*config\.json",
    ),
]
