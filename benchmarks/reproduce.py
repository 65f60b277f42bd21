"""Run everything behind docs/results: a plan's teachers, their students by every method, and what these start from.

    python benchmarks/reproduce.py --glue_dir ../shared/data/glue --tasks stsb rte --methods kd pkd-skip --grid stsb

What is trained, and how, stands in benchmarks/plans/PLAN.yaml. Each step is a `bertkd` command that stands alone, so
that anybody can repeat a single result, and is printed before it runs. What is done is not done again, so a killed run
goes on when it is started once more; results are copied as they come. A GPU has room for several steps at a time:
--precision=--bf16 --jobs 8.
"""

import argparse
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from string import Template
from typing import Any

import yaml

ROOT = Path(__file__).parents[1]
PLANS = ROOT / "benchmarks" / "plans"
TEXT = "text"  # in the place of a task

Options = dict[str, Any]


@dataclass(frozen=True)
class Step:
    """One command of `bertkd`, the folder it writes to with one model per seed, and where its records are copied."""

    task: str
    method: str
    command: list[str]
    folder: Path
    models: list[Path]
    files: list[tuple[Path, Path]]

    def __str__(self) -> str:
        return f"\n$ bertkd {shlex.join(self.command)}{'  # done' if self.is_done else ''}"

    def builds_on(self, other: "Step") -> bool:
        """Whether the command reads the other's folder, or goes on in it."""
        return any(Path(word).is_relative_to(other.folder) for word in self.command if "/" in word)

    @property
    def is_done(self) -> bool:
        # Other steps start from these models, which are not committed as the records are.
        is_start = self.method == "teacher" or self.task == TEXT
        has_model = not is_start or (ROOT / self.folder / "model.safetensors").is_file()
        return has_model and all((ROOT / target).is_file() for _, target in self.files)


@dataclass(frozen=True)
class Method:
    """An entry of a plan: the command that trains or exports a model."""

    command: str
    config: str = ""  # the name of shipped settings
    settings: list[str] = field(default_factory=list)  # names of the plan's settings
    options: Options = field(default_factory=dict)
    runs: list[Options] = field(default_factory=lambda: [{}])  # one command for each, all in one folder
    skip: list[str] = field(default_factory=list)  # the tasks without this method
    writes: str = "results.json"  # the record that the command leaves beside the model
    record: str = "$method-seed$seed.json"  # the name of its copy
    results: str = ""  # a subfolder for the copies


@dataclass(frozen=True)
class Plan:
    """A plan, of which benchmarks/plans/minilm.yaml explains the parts, and what the command line adds to it."""

    work: str
    results: str
    data: dict[str, Options]
    settings: dict[str, Options]
    text: dict[str, Method]
    methods: dict[str, Method]
    grid: dict[str, Any]
    exported: list[str]
    exports: dict[str, Method]
    glue_dir: str = ""
    precision: str = ""

    def training_steps(self, tasks: Sequence[str], methods: Sequence[str]) -> list[Step]:
        """Returns each task's teacher and students, after the models from plain text that these read."""
        steps: list[Step] = []
        for task in tasks:
            steps += self.task_steps(task, methods)

        # The last one comes first, because it may read an earlier one.
        for name, method in reversed(self.text.items()):
            text_step = self.step(TEXT, name, method)
            if any(step.builds_on(text_step) for step in steps):
                steps.insert(0, text_step)
        return steps

    def task_steps(self, task: str, methods: Sequence[str]) -> Iterator[Step]:
        for name in ("teacher", *methods):
            method = self.methods[name]
            if task not in method.skip:
                for run in method.runs:
                    yield self.step(task, name, method, run)

    def grid_steps(self, task: str) -> Iterator[Step]:
        """Yields the points around the task's shipped settings, with one option varied at a time."""
        method = replace(self.methods[self.grid["method"]], results="grid")
        values = self.on_task(self.grid["values"], task)
        config = Template(method.config).substitute(task=task)
        shipped = yaml.safe_load((ROOT / "bertkd" / "configs" / f"{config}.yaml").read_text())

        tried = []
        for option in values:
            for value in values[option]:
                # The shipped setting is a point of every option, and is run once.
                point = {key: float(shipped[key]) for key in values} | {option: float(value)}
                if point not in tried:
                    tried.append(point)
                    name = f"{self.grid['method']}-{option}{value}"
                    yield self.step(task, name, method, self.grid["options"] | {option: value})

    def export_steps(self, task: str, methods: Sequence[str]) -> Iterator[Step]:
        for engine, export in self.exports.items():
            for step in self.task_steps(task, methods):
                if step.method in self.exported:
                    model = {"model_name_or_path": str(step.models[0])}
                    yield self.step(task, f"{step.method}-{engine}", export, model)

    def step(self, task: str, name: str, method: Method, run: Options | None = None) -> Step:
        """Returns the command of one entry on one task; `run` holds the options that win over the entry's."""
        options = {"config": method.config} if method.config else {}
        settings = [self.settings[key] for key in method.settings]
        for more in (self.data[task], *settings, method.options, run or {}):
            options |= self.on_task(more, task)
        folder = Path(self.work, task, name)
        options["output_dir"] = str(folder)

        variables = {"task": task, "method": name, "work": self.work, "glue_dir": self.glue_dir}
        variables["data"] = str(Path(self.glue_dir).parent)
        command = [method.command]
        for option, value in options.items():
            command.append(f"--{option}")
            for word in as_words(value):
                command.append(Template(word).substitute(variables))
        # An export computes in the precision that its options name.
        if method.command != "export":
            command += shlex.split(self.precision)

        seeds = as_words(options["seed"])
        models = [folder if len(seeds) == 1 else folder / f"seed-{seed}" for seed in seeds]
        files = []
        for seed, model in zip(seeds, models, strict=True):
            for stage in options.get("stages", [""]):
                target = Template(method.record).substitute(method=name, seed=seed, stage=stage)
                files.append((model / stage / method.writes, Path(self.results, method.results, task, target)))
        return Step(task, name, command, folder, models, files)

    def on_task(self, options: Options, task: str) -> Options:
        """Returns options for one task: what stands under its name wins over what all tasks share."""
        shared = {option: value for option, value in options.items() if option not in self.data}
        return shared | options.get(task, {})


def as_words(value: Any) -> list[str]:
    values = value if isinstance(value, list) else [value]
    return [str(item).lower() if isinstance(item, bool) else str(item) for item in values]


def read_plan(name: str) -> Plan:
    """Reads benchmarks/plans/NAME.yaml; a key that no entry has is refused."""
    content = yaml.safe_load((PLANS / f"{name}.yaml").read_text())
    for section in ("text", "methods", "exports"):
        content[section] = {key: Method(**entry) for key, entry in content[section].items()}
    return Plan(**content)


def run_all(steps: Sequence[Step], jobs: int) -> None:
    """Runs the steps that are not done, up to `jobs` at a time, each after the earlier ones that it builds on.

    Where a step fails, those that build on it are left out, and the others go on.

    Raises:
        RuntimeError: at the end, naming the steps that failed.
    """
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for place, step in enumerate(steps):
        sorter.add(place, *(earlier for earlier in range(place) if step.builds_on(steps[earlier])))
    sorter.prepare()

    ready, running, failed = list(sorter.get_ready()), dict[Future[None], int](), list[str]()
    with ThreadPoolExecutor(jobs) as pool:
        while ready or running:
            # In the plan's order, so that one task is finished before the next.
            ready.sort()
            while ready and len(running) < jobs:
                place = ready.pop(0)
                running[pool.submit(run_step, steps[place])] = place

            for future in wait(running, return_when=FIRST_COMPLETED).done:
                place = running.pop(future)
                if (error := future.exception()) is None:
                    sorter.done(place)
                else:
                    # What builds on a step that is never done does not become ready.
                    failed.append(str(steps[place].folder))
                    print(f"{failed[-1]} failed: {error}", file=sys.stderr, flush=True)
            ready += sorter.get_ready()

    if failed:
        raise RuntimeError(f"These steps failed, and what builds on them was not run: {', '.join(failed)}.")


def run_step(step: Step) -> None:
    """Runs a step that is not done, and copies its records."""
    print(step, flush=True)
    if step.is_done:
        return

    subprocess.run([sys.executable, "-m", "bertkd", *step.command], cwd=ROOT, check=True)
    for source, target in step.files:
        (ROOT / target).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / source, ROOT / target)


def main() -> None:
    # The other options' choices stand in the plan.
    first = argparse.ArgumentParser(add_help=False)
    names = sorted(path.stem for path in PLANS.glob("*.yaml"))
    first.add_argument("--plan", default="minilm", choices=names, help="A file of benchmarks/plans (default: minilm).")
    plan = read_plan(first.parse_known_args()[0].plan)
    tasks = [task for task in plan.data if task != TEXT]
    methods = [name for name in plan.methods if name != "teacher"]
    in_grid = [task for task in tasks if task not in plan.methods[plan.grid["method"]].skip]

    formatter = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, parents=[first], formatter_class=formatter)
    parser.add_argument("--glue_dir", required=True, help="The folder of GLUE's tsv files; other data lie beside it.")
    parser.add_argument("--tasks", nargs="+", default=tasks, choices=tasks)
    parser.add_argument("--methods", nargs="*", default=methods, choices=methods)
    parser.add_argument("--grid", nargs="*", default=[], choices=in_grid, help="Also search settings on these tasks.")
    parser.add_argument("--exports", nargs="*", default=[], choices=tasks, help="Also export the models of these.")
    parser.add_argument("--precision", default="--bf16 --use_cpu", help="Options of the Trainer, '' for float32.")
    parser.add_argument("--jobs", type=int, default=1, help="Steps at a time, on one device.")
    parser.add_argument("--dry_run", action="store_true", help="Only print the commands.")
    options = parser.parse_args()

    plan = replace(plan, glue_dir=options.glue_dir, precision=options.precision)
    steps = plan.training_steps(options.tasks, options.methods)
    for task in options.grid:
        steps += plan.grid_steps(task)
    for task in options.exports:
        steps += plan.export_steps(task, options.methods)

    if options.dry_run:
        print(*steps, sep="\n")
        return
    try:
        run_all(steps, options.jobs)
    except RuntimeError as error:
        sys.exit(f"reproduce.py: {error}")


if __name__ == "__main__":
    main()
