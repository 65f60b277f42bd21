"""Run everything behind docs/results: a plan's teachers, their students by every method, and what these start from.

    python benchmarks/reproduce.py --glue_dir ../shared/data/glue --tasks stsb rte --methods kd --results outputs/again

What is trained, and how, stands in benchmarks/plans/PLAN.yaml. Each step is a `bertkd` command that stands alone, so
that anybody can repeat a single result, and is printed before it runs. What has its record in --results is not done
again, so a killed run goes on when it is started once more, and records that are there are never replaced: without
--results, only what docs/results lacks is run. A GPU has room for several steps at a time:
--precision=--bf16 --jobs 8. Where it is lent for a while, --minutes says after how many of them no step is started.
"""

import argparse
import json
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from graphlib import TopologicalSorter
from pathlib import Path
from string import Template
from typing import Any

import yaml

from bertkd.atomic import atomic_path

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
    turn: int = 0  # the place of its seed among the method's, where each seed is a step
    is_start: bool = False  # whether a step that is not done builds on it

    def __str__(self) -> str:
        return f"\n$ bertkd {shlex.join(self.command)}{'  # done' if self.is_done else ''}"

    def builds_on(self, other: "Step") -> bool:
        """Whether the command reads the other's folder, or goes on in it."""
        return any(Path(word).is_relative_to(other.folder) for word in self.command if "/" in word)

    @property
    def is_done(self) -> bool:
        # Models are not committed as the records are.
        has_models = all((ROOT / source.parent / "model.safetensors").is_file() for source, _ in self.files)
        return (has_models or not self.is_start) and all((ROOT / target).is_file() for _, target in self.files)


@dataclass(frozen=True)
class Method:
    """An entry of a plan: the command that trains or exports a model."""

    command: str
    config: str = ""  # the name of shipped settings
    settings: list[str] = field(default_factory=list)  # names of the plan's settings
    options: Options = field(default_factory=dict)
    runs: list[Options] = field(default_factory=lambda: [{}])  # one command for each, all in one folder
    stages: dict[str, str] = field(default_factory=dict)  # subfolders with records of their own, and their names there
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
    # Whether each seed is a step of its own, and the first seed of everything runs before the second of anything.
    seeds_apart: bool = False
    # Which of a method's several seeds are run; all where there are none. Each is a step then.
    seeds: tuple[str, ...] = ()
    glue_dir: str = ""
    precision: str = ""

    def training_steps(self, tasks: Sequence[str], methods: Sequence[str]) -> list[Step]:
        """Returns each task's teacher and students, after the models from plain text that these read."""
        steps: list[Step] = []
        for task in tasks:
            steps += self.task_steps(task, methods)
        if self.seeds_apart:
            # What students of a task wait for comes before all of them.
            steps.sort(key=lambda step: (step.method != "teacher", step.turn))

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
                    yield from self.steps_of_run(task, name, method, run)

    def steps_of_run(self, task: str, name: str, method: Method, run: Options) -> Iterator[Step]:
        """Yields the command of a run, or one for each of its seeds."""
        step = self.step(task, name, method, run)
        if not self.seeds_apart or len(step.models) == 1:
            yield step
            return

        for turn, model in enumerate(step.models):
            seed = model.name.removeprefix("seed-")
            if not self.seeds or seed in self.seeds:
                yield self.step(task, name, method, run | {"seed": seed}, folder=model, turn=turn)

    def grid_steps(self, task: str) -> Iterator[Step]:
        """Yields the points around the method's settings on a task, with one option varied at a time."""
        method = replace(self.methods[self.grid["method"]], results="grid")
        values = self.on_task(self.grid["values"], task)
        center: Options = {}
        if method.config:
            config = Template(method.config).substitute(task=task)
            center = yaml.safe_load((ROOT / "bertkd" / "configs" / f"{config}.yaml").read_text())
        for more in (*(self.settings[key] for key in method.settings), method.options):
            center = center | self.on_task(more, task)

        tried = []
        for option in values:
            for value in values[option]:
                # The plan's own setting is a point of every option, and is run once.
                point = {key: float(center[key]) for key in values} | {option: float(value)}
                if point not in tried:
                    tried.append(point)
                    name = f"{self.grid['method']}-{option}{value}"
                    yield self.step(task, name, method, self.grid["options"] | {option: value})

    def export_steps(self, task: str, methods: Sequence[str]) -> Iterator[Step]:
        """Yields the exports of each method's first seed that is run, under the names that their records have."""
        first_steps: dict[str, Step] = {}
        for step in self.task_steps(task, methods):
            if step.method in self.exported:
                first_steps.setdefault(step.method, step)

        files = []
        for step in first_steps.values():
            files += [file for file in step.files if file[0].is_relative_to(step.models[0])]
        for engine, export in self.exports.items():
            for source, target in files:
                name, _, seed = target.stem.partition("-seed")
                run: Options = {"model_name_or_path": str(source.parent), "seed": seed}
                folder = Path(self.work, task, f"{name}-{engine}")
                yield self.step(task, folder.name, export, run, folder / f"seed-{seed}" if self.seeds else folder)

    def step(
        self,
        task: str,
        name: str,
        method: Method,
        run: Options | None = None,
        folder: Path | None = None,
        turn: int = 0,
    ) -> Step:
        """Returns the command of one entry on one task.

        Args:
            task, name, method: the entry.
            run: the options that win over the entry's.
            folder: the folder to write to, instead of the entry's own.
            turn: see `Step`.
        """
        options = {"config": method.config} if method.config else {}
        settings = [self.settings[key] for key in method.settings]
        for more in (self.data[task], *settings, method.options, run or {}):
            options |= self.on_task(more, task)
        folder = folder or Path(self.work, task, name)
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
            stages = method.stages or {stage: stage for stage in options.get("stages", [""])}
            for stage, stage_name in stages.items():
                target = Template(method.record).substitute(method=name, seed=seed, stage=stage_name)
                files.append((model / stage / method.writes, Path(self.results, method.results, task, target)))
        return Step(task, name, command, folder, models, files, turn)

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


def with_starts(steps: Sequence[Step]) -> list[Step]:
    """Returns the steps; those are marked whose models a later step needs that is not done."""
    marked = list(steps)
    for place, step in reversed(list(enumerate(steps))):
        later = marked[place + 1 :]
        marked[place] = replace(step, is_start=any(not other.is_done and other.builds_on(step) for other in later))
    return marked


def estimate(steps: Sequence[Step]) -> str:
    """Says how long the steps that are not done take one after the other, by the records of those that are.

    A step takes as long as the same method on the same task took with another seed.
    """
    seconds: dict[tuple[str, str], list[float]] = {}
    for step in steps:
        for _, target in step.files:
            if (ROOT / target).is_file():
                record = json.loads((ROOT / target).read_text())
                seconds.setdefault((step.task, step.method), []).append(record.get("seconds", 0.0))

    total, unknown = 0.0, list[str]()
    waiting = [step for step in steps if not step.is_done]
    for step in waiting:
        known = seconds.get((step.task, step.method))
        if known:
            total += len(step.files) * sum(known) / len(known)
        else:
            unknown.append(f"{step.task}/{step.method}")

    text = f"{len(waiting)} of {len(steps)} steps are left: {total / 60:.0f} minutes of training, one after the other"
    return f"{text}, and {len(unknown)} that never ran: {', '.join(unknown)}." if unknown else f"{text}."


def run_all(steps: Sequence[Step], jobs: int, minutes: float | None = None) -> None:
    """Runs the steps that are not done, up to `jobs` at a time, each after the earlier ones that it builds on.

    Where a step fails, those that build on it are left out, and the others go on. After `minutes` no step is started.

    Raises:
        RuntimeError: at the end, naming the steps that failed.
    """
    sorter: TopologicalSorter[int] = TopologicalSorter()
    for place, step in enumerate(steps):
        sorter.add(place, *(earlier for earlier in range(place) if step.builds_on(steps[earlier])))
    sorter.prepare()
    deadline = None if minutes is None else time.monotonic() + 60 * minutes

    ready, running, failed = list(sorter.get_ready()), dict[Future[None], int](), list[str]()
    with ThreadPoolExecutor(jobs) as pool:
        while ready or running:
            # In the plan's order, so that one task is finished before the next.
            ready.sort()
            if deadline is not None and time.monotonic() > deadline:
                print(f"The time is up: {len(ready)} steps that could run are not started.", flush=True)
                ready.clear()
                if not running:
                    break
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
        path = ROOT / target
        if path.is_file():
            print(f"{target} is kept: its model was made again, for what starts from it.", flush=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        # One that was copied in part would count as done.
        with atomic_path(path) as partial:
            shutil.copy(ROOT / source, partial)


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
    parser.add_argument(
        "--exports", nargs="*", default=[], choices=tasks, help="Also export the models of these tasks, of one seed."
    )
    parser.add_argument("--results", default=plan.results, help="Copy the records here; by default the plan's folder.")
    parser.add_argument("--precision", default="--bf16 --use_cpu", help="Options of the Trainer, '' for float32.")
    parser.add_argument("--jobs", type=int, default=1, help="Steps at a time, on one device.")
    parser.add_argument(
        "--seeds_apart", action="store_true", help="Make each seed a step, and run the first of everything first."
    )
    parser.add_argument(
        "--seeds", nargs="+", default=[], help="Run only these seeds of what has several, each as a step."
    )
    parser.add_argument("--minutes", type=float, help="After so many minutes, start no further step.")
    parser.add_argument("--dry_run", action="store_true", help="Only print the commands.")
    parser.add_argument("--estimate", action="store_true", help="Only print how long what is left will take.")
    options = parser.parse_args()

    if (ROOT / options.results).resolve() != (ROOT / plan.results).resolve():
        # Models of other records are other models.
        plan = replace(plan, work=f"{plan.work}-{Path(options.results).resolve().name}")
    plan = replace(plan, glue_dir=options.glue_dir, precision=options.precision, results=options.results)
    plan = replace(plan, seeds=tuple(options.seeds))
    plan = replace(plan, seeds_apart=plan.seeds_apart or options.seeds_apart or bool(options.seeds))
    steps = plan.training_steps(options.tasks, options.methods)
    for seed in options.seeds:
        if not any(model.name == f"seed-{seed}" for step in steps for model in step.models):
            parser.error(f"--seeds {seed}: no method that is to run has it as one of several seeds.")
    for task in options.grid:
        steps += plan.grid_steps(task)
    for task in options.exports:
        steps += plan.export_steps(task, options.methods)
    steps = with_starts(steps)

    if options.dry_run:
        print(*steps, sep="\n")
        return
    if options.estimate:
        print(estimate(steps))
        return
    try:
        run_all(steps, options.jobs, options.minutes)
    except RuntimeError as error:
        sys.exit(f"reproduce.py: {error}")


if __name__ == "__main__":
    main()
