"""The plan behind the results, and the order in which its steps run."""

import subprocess
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import ROOT
from parsing import parse

from benchmarks import reproduce
from benchmarks.reproduce import TEXT, Plan, Step, read_plan
from bertkd import DistilBertKDConfig, DistillationConfig, DynaBertKDConfig, PatientKDConfig, TinyBertKDConfig
from bertkd.cli import distilbert, dynabert, export, mlm, tinybert
from bertkd.cli.options import CorpusOptions, ShapeOptions, TaskOptions, TrainOptions
from bertkd.cli.prune import PruneOptions
from bertkd.pruning import PrunedKDConfig

# The trainer's config and the own options of each command that the plans use.
CLASSES: dict[str, tuple[Any, Any]] = {
    "finetune": (DistillationConfig, TrainOptions),
    "kd": (DistillationConfig, TrainOptions),
    "patient-kd": (PatientKDConfig, TrainOptions),
    "dynabert": (DynaBertKDConfig, dynabert.DynaBertOptions),
    "tinybert": (TinyBertKDConfig, tinybert.TinyBertOptions),
    "mlm": (DistilBertKDConfig, mlm.MaskedLMOptions),
    "tinybert-general": (TinyBertKDConfig, ShapeOptions),
    "prune": (PrunedKDConfig, PruneOptions),
    "distilbert": (DistilBertKDConfig, distilbert.DistilBertOptions),
    "export": (DistillationConfig, export.ExportOptions),
}


def plan_of(name: str = "minilm", precision: str = "--bf16 --use_cpu") -> Plan:
    return replace(read_plan(name), glue_dir="data/glue", precision=precision)


def tasks_and_methods(plan: Plan) -> tuple[list[str], list[str]]:
    return [task for task in plan.data if task != TEXT], [name for name in plan.methods if name != "teacher"]


def runs_of(step: Step) -> Sequence[Any]:
    """The trainings that the real parser makes of a step."""
    command, *words = step.command
    config_class, own_class = CLASSES[command]
    defaults = {"stage": "prediction"} if command == "tinybert" else {}  # that command's own default
    return parse(config_class, words, defaults, own_class, CorpusOptions if step.task == TEXT else TaskOptions)


@pytest.mark.parametrize("name", sorted(path.stem for path in reproduce.PLANS.glob("*.yaml")))
def test_every_command_of_a_plan_parses(name: str) -> None:
    plan = plan_of(name)
    tasks, methods = tasks_and_methods(plan)
    steps = plan.training_steps(tasks, methods)
    for task in tasks:
        if task not in plan.methods[plan.grid["method"]].skip:
            steps += plan.grid_steps(task)
    exports = [step for task in tasks for step in plan.export_steps(task, methods)]

    for step in steps:
        runs = runs_of(step)
        assert [run.config.output_dir for run in runs] == [str(model) for model in step.models]
        for run in runs:
            if step.task == TEXT:
                assert run.data.corpus_files
            else:
                assert (run.data.task_name or run.data.files_name) == step.task

    sources = {source.parent for step in steps for source, _ in step.files}
    for step in exports:
        (run,) = runs_of(step)
        assert Path(run.models.model_name_or_path) in sources
        assert run.own.engine and not run.config.bf16

    # No step takes another one's folder or record; two runs of one method share the folder.
    all_files = [file for step in (*steps, *exports) for file in step.files]
    assert len({source for source, _ in all_files}) == len(all_files)
    assert len({target for _, target in all_files}) == len(all_files)


def test_the_minilm_plan_has_all_methods_searches_ablations_and_exports() -> None:
    plan = plan_of()
    tasks, methods = tasks_and_methods(plan)
    steps = plan.training_steps(tasks, methods)
    assert tasks == ["sst2", "stsb", "mrpc", "cola", "rte", "imdb"] and len(methods) == 26
    assert {step.method for step in steps if step.task == TEXT} == set(plan.text)

    for task in tasks:
        skipped = [name for name in plan.methods if task in plan.methods[name].skip]
        assert {step.method for step in steps if step.task == task} == set(plan.methods) - set(skipped)
        exports = [*plan.export_steps(task, methods)]
        models = [max(1, len(plan.methods[name].stages)) for name in plan.exported if name not in skipped]
        assert len(exports) == sum(models)

    ablations = {step.method for step in steps for _, target in step.files if "ablation" in target.parts}
    losses = ("noce", "nocos", "nomlm", "random")
    parts = ("nogd", "noda", "noattn", "nohidn")
    pruned = ("rungs", "25-unfitted", "25-score", "25-error", "25-nohidden")
    of_methods = {"distilbert": losses, "tinybert": parts, "pruned": pruned}
    assert ablations == {f"{method}-{name}" for method, names in of_methods.items() for name in names}


def test_records_lie_where_the_committed_ones_do() -> None:
    plan = plan_of()
    tasks, methods = tasks_and_methods(plan)
    steps = [*plan.training_steps(tasks, methods)]
    for task in ("cola", "mrpc", "rte", "stsb"):
        steps += plan.grid_steps(task)
    for task in tasks:
        steps += plan.export_steps(task, methods)

    targets = {target for step in steps for _, target in step.files}
    committed = {path.relative_to(ROOT) for path in (ROOT / plan.results).rglob("*.json")}
    assert committed and committed <= targets
    by_stage = Path(plan.results, "stsb", "dynabert-width-unwired-seed42.json")
    assert (Path(plan.work, "stsb", "dynabert-unwired", "width", "results.json"), by_stage) in [
        file for step in steps for file in step.files
    ]


def test_a_search_varies_one_option_and_runs_the_shipped_setting_once() -> None:
    steps = [*plan_of().grid_steps("cola")]
    shipped = yaml.safe_load((ROOT / "bertkd" / "configs" / "patient_kd" / "cola.yaml").read_text())
    points = []
    for step in steps:
        (run,) = runs_of(step)
        points.append({name: getattr(run.config, name) for name in ("alpha", "temperature", "beta")})

    assert len(points) == 8
    assert points.count({name: shipped[name] for name in ("alpha", "temperature", "beta")}) == 1
    for point in points:
        assert sum(value != shipped[name] for name, value in point.items()) <= 1
    assert len([*plan_of().grid_steps("stsb")]) == 6  # without temperatures


def test_what_a_task_says_wins_and_the_settings_come_in_their_order() -> None:
    plan = plan_of()
    options = {"learning_rate": "1e-4", "max_steps": 3, "rte": {"learning_rate": "2e-4"}}
    assert plan.on_task(options, "rte") == {"learning_rate": "2e-4", "max_steps": 3}
    assert plan.on_task(options, "sst2") == {"learning_rate": "1e-4", "max_steps": 3}

    (_, *steps) = plan.task_steps("sst2", ["dynabert", "tinybert"])
    epochs = [runs_of(step)[0].config.num_train_epochs for step in steps]
    assert epochs == [1, 1, 3] and len(steps[-1].models) == 1  # one seed of TinyBERT on SST-2


def test_only_the_text_models_that_are_read_are_trained() -> None:
    plan = plan_of()

    def text_steps(*methods: str, task: str = "stsb") -> list[str]:
        return [step.method for step in plan.training_steps([task], methods) if step.task == TEXT]

    assert text_steps("kd") == []
    assert text_steps("tinybert") == ["mlm", "general"]
    assert text_steps("distilbert-kd") == ["mlm", "distilbert"]
    assert text_steps("distilbert-random", task="rte") == []  # left out there


def test_a_misspelled_key_of_a_plan_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (reproduce.PLANS / "minilm.yaml").read_text().replace("    skip: [imdb]", "    skips: [imdb]", 1)
    (tmp_path / "other.yaml").write_text(text)
    monkeypatch.setattr(reproduce, "PLANS", tmp_path)
    with pytest.raises(TypeError, match="skips"):
        read_plan("other")


# ---- running ----


@pytest.fixture
def steps() -> list[Step]:
    methods = ["finetuned", "kd", "dynabert", "distilbert", "distilbert-kd"]
    return plan_of(precision="").training_steps(["stsb"], methods)


@pytest.mark.parametrize("jobs", [2, 8])
def test_the_first_steps_are_those_that_wait_for_nothing(
    jobs: int, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    first, lock, enough = list[str](), threading.Lock(), threading.Event()

    def run_step(step: Step) -> None:
        if enough.is_set():
            return
        with lock:
            first.append(step.method)
        # Nothing ends before all that may start have started; one that may not would make the list longer.
        if len(first) == min(jobs, 3):
            time.sleep(0.2)
            enough.set()
        enough.wait(timeout=10)

    monkeypatch.setattr(reproduce, "run_step", run_step)
    reproduce.run_all(steps, jobs)
    assert sorted(first) == sorted(["mlm", "teacher", "finetuned"][:jobs])


def test_steps_wait_for_what_they_build_on(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    lock, started, finished = threading.Lock(), list[Step](), list[Step]()

    def run_step(step: Step) -> None:
        with lock:
            started.append(step)
            needed = [earlier for earlier in steps[: steps.index(step)] if step.builds_on(earlier)]
            assert all(earlier in finished for earlier in needed)
            assert len(started) - len(finished) <= 3
        time.sleep(0.01)
        with lock:
            finished.append(step)

    monkeypatch.setattr(reproduce, "run_step", run_step)
    reproduce.run_all(steps, jobs=3)
    assert sorted(map(id, finished)) == sorted(map(id, steps))

    needs = {}
    for step in steps:
        stages = "-depth" if "depth" in step.command else ""
        needs[step.method + stages] = {other.method for other in steps if other is not step and step.builds_on(other)}
    assert needs["kd"] == {"teacher"} and needs["distilbert-kd"] == {"teacher", "distilbert"}
    assert needs["dynabert-depth"] == {"teacher", "dynabert"}


def test_one_job_keeps_the_order_of_the_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    steps = plan_of().training_steps(["stsb", "cola"], ["kd", "tinybert", "distilbert-kd"])
    ran = list[Step]()
    monkeypatch.setattr(reproduce, "run_step", ran.append)
    reproduce.run_all(steps, jobs=1)
    assert ran == steps


def test_what_builds_on_a_failed_step_is_left_out(steps: list[Step], monkeypatch: pytest.MonkeyPatch) -> None:
    ran = list[str]()

    def fail(step: Step) -> None:
        ran.append(step.method)
        if step.method in ("mlm", "teacher"):
            raise subprocess.CalledProcessError(1, step.command)

    monkeypatch.setattr(reproduce, "run_step", fail)
    with pytest.raises(RuntimeError, match=r"These steps failed.*: outputs/results/text/mlm, \S+stsb/teacher\."):
        reproduce.run_all(steps, jobs=1)
    assert ran == ["mlm", "teacher", "finetuned"]


def test_what_is_done_is_not_done_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, student = plan_of().task_steps("stsb", ["kd"])
    ran = list[list[str]]()

    def train(command: list[str], cwd: Path, check: bool) -> None:
        ran.append(command)
        for source, _ in (*teacher.files, *student.files):
            (cwd / source).parent.mkdir(parents=True, exist_ok=True)
            (cwd / source).write_text("{}")

    monkeypatch.setattr(reproduce, "ROOT", tmp_path)
    monkeypatch.setattr(subprocess, "run", train)
    for step in (teacher, student, student):
        reproduce.run_step(step)

    assert [command[1:4] for command in ran] == [["-m", "bertkd", "finetune"], ["-m", "bertkd", "kd"]]
    assert all((tmp_path / target).is_file() for _, target in student.files) and len(student.files) == 3
    lines = capsys.readouterr().out.split("\n\n")
    assert "$ bertkd kd --config kd/stsb " in lines[-1] and lines[-1].endswith("  # done\n")

    # A teacher that is made again, for what starts from it, does not take the place of the one that is published.
    (_, record), *_ = teacher.files
    (tmp_path / record).write_text('{"published": true}')
    reproduce.run_step(replace(teacher, is_start=True))
    assert len(ran) == 3 and (tmp_path / record).read_text() == '{"published": true}'
    assert f"{record} is kept" in capsys.readouterr().out


def test_a_record_without_its_model_is_not_enough_for_a_later_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = plan_of("base").training_steps(["stsb"], ["kd-6", "dynabert"])
    by_stage = {f"{step.method}{step.files[0][0].parent.name}": step for step in steps}
    width, depth, last = (by_stage[f"dynabert{stage}"] for stage in ("width", "depth", "finetune"))
    monkeypatch.setattr(reproduce, "ROOT", tmp_path)

    def waiting() -> list[Step]:
        return [replace(step, is_start=False) for step in reproduce.with_starts(steps) if not step.is_done]

    # The records are committed, and the models are not.
    for step in steps:
        for _, target in step.files:
            (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / target).write_text("{}")
    assert waiting() == []

    (tmp_path / last.files[0][1]).unlink()
    assert waiting() == [step for step in steps if step.method == "teacher" or step in (width, depth, last)]
    for step in (width, depth):
        (tmp_path / step.files[0][0]).parent.mkdir(parents=True)
        (tmp_path / step.files[0][0].parent / "model.safetensors").touch()
    assert [step.method for step in waiting()] == ["teacher", "dynabert"]


def test_some_seeds_are_run_without_the_others(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def commands(*words: str) -> list[str]:
        options = [
            "--glue_dir",
            "data/glue",
            "--results",
            "nowhere",
            "--tasks",
            "stsb",
            "--methods",
            "kd",
            "--dry_run",
        ]
        monkeypatch.setattr("sys.argv", ["reproduce.py", *options, *words])
        reproduce.main()
        return [line for line in capsys.readouterr().out.splitlines() if line]

    # The teacher has one seed, and everything needs it.
    teacher, student = commands("--seeds", "44")
    assert teacher.startswith("$ bertkd finetune ") and "--seed 44" in student
    # Models of other records than the plan's lie apart from these.
    assert "outputs/results-nowhere/stsb/kd/seed-44 " in student
    assert len(commands("--seeds", "42", "44")) == 3

    # The exports are those of the models that are run.
    *_, of_teacher, of_student = commands("--seeds", "44", "--exports", "stsb")
    assert "stsb/teacher " in of_teacher and of_teacher.endswith("stsb/teacher-openvino-int8/seed-42")
    assert "stsb/kd/seed-44 " in of_student and of_student.endswith("stsb/kd-openvino-int8/seed-44")

    with pytest.raises(SystemExit):
        commands("--seeds", "45")
    assert "--seeds 45: no method that is to run has it" in capsys.readouterr().err
