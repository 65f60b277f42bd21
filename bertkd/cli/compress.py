"""From a fine-tuned teacher to a folder to deploy, in one command: method, budget, engine and precision.

    bertkd compress --teacher_model_name_or_path outputs/teacher --task_name sst2 --budget 5 --unit ms \
        --output_dir outputs/small

The teacher is pruned to the budget, measured in the engine and precision that will serve, fitted, distilled, exported,
and measured once more. What several sizes reach without training is shown first. --budget 50% is a share of what the
teacher costs, and --budget 1 --unit points asks for the fastest of five sizes that loses at most one point before it
is trained.

With --method pkd-skip and others, the student is made by a paper's method: the largest student within the budget is
found by measuring, before anything is trained (DynaBERT trains first and searches its supernet), and starts from the
teacher's layers, or from --model_name_or_path where that is given. A command that was killed goes on when it is
started again.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from bertkd import DistilBertKDConfig
from bertkd.atomic import read_json, write_json, write_text
from bertkd.cli import distilbert, dynabert, export, finetune, kd, resolve, search, tinybert
from bertkd.cli.commands import CORPUS_DEFAULTS, TaskRun, check_outputs, note_slow_int8, quiet, run_or_resume
from bertkd.cli.export import ExportOptions
from bertkd.cli.options import CorpusOptions, ModelOptions, RunOptions, TrainOptions
from bertkd.cli.parser import Options, note, one_run, option_value, parse_runs, typed_value
from bertkd.cli.prune import PruneOptions
from bertkd.cli.rules import COUNT
from bertkd.cli.search import SearchOptions
from bertkd.distillation.checks import check_vocabularies
from bertkd.distillation.method import Method
from bertkd.export import ENGINE_PACKAGES, quantization_schemes, require_engine
from bertkd.export.checks import check_length
from bertkd.folder_lock import folder_in_use
from bertkd.methods import all_methods, method_named
from bertkd.models.loading import load_config
from bertkd.pipeline import load_language_model, load_model, resolve_model_name
from bertkd.pipeline.compress import Choice, Goal, Size, choose_size, depth_sizes, general_sizes, shape_sizes
from bertkd.pipeline.contents import content_digests
from bertkd.pipeline.experiment import check_no_training, output_folder, with_changes
from bertkd.pipeline.limits import COST_UNITS, UNITS, Limit
from bertkd.pipeline.pruning import FILE, START, Pruning, train_pruned
from bertkd.records import ExportResult, ReportSet, RunResult, StageResult, environment, render_page
from bertkd.students import LAYER_STRATEGIES

DEFAULT_METHOD = "pruned"
METHOD_NAMES = [method.name for method in all_methods() if method.name != "teacher"]
# If the teacher's latency changed by this factor or more, the message says that the machine is another one, or busier
# or quieter. On one machine it differs by less from hour to hour, as a rule.
OTHER_SPEED = 1.5
# What the choice of a size does not depend on.
NOT_FOR_THE_SIZE = {"calibration_rows", "max_drop", "pruning_rows", "quantization_aware_rows"}
# A dry run ends before the size of a student is measured that comes out of a training.
UNKNOWN = Choice(math.nan, math.nan)
# The settings of a run that also hold for the first of DistilBERT's two steps.
OF_BOTH_STEPS = ("bf16", "data_seed", "disable_tqdm", "fp16", "seed")
# An export for the clock takes longer than its passes: with many of them, a network is measured well at once.
DEFAULTS = {"engine": "openvino", "precision": "int8", "quantization_aware_rows": 6400, "repeats": 50}


@dataclass
class CompressOptions(ExportOptions, TrainOptions):
    """What is to be deployed, and what it may cost."""

    method: str = field(
        default=DEFAULT_METHOD, metadata={"choices": METHOD_NAMES, "help": "The method that trains the student."}
    )
    budget: str = field(
        default="",
        metadata={
            "help": "The most that the deployed model may cost, in --unit, or as a share of what the teacher costs "
            "such as 50%."
        },
    )
    unit: str = field(
        default="ms",
        metadata={
            "choices": UNITS,
            "help": "The unit of the budget: ms (measured here), mb, parameters or gflops; for the method 'pruned' "
            "also the points that the metric may lose.",
        },
    )
    pruning_rows: int = field(
        default=2048,
        metadata={
            "help": "At most this many training rows, drawn by the seed, say what is pruned and how it is fitted.",
            "needs": "method=pruned",
            "range": COUNT,
        },
    )
    corpus_files: list[str] | None = field(
        default=None, metadata={"help": "Plain text that DistilBERT is pretrained on.", "needs": "method=distilbert"}
    )
    pretrain_config: str = field(
        default="distilbert/small",
        metadata={"help": "The settings of DistilBERT's pretraining.", "needs": "method=distilbert"},
    )
    language_model: str | None = field(
        default=None,
        metadata={
            "help": "The model for masked words that teaches DistilBERT's pretraining.",
            "needs": "method=distilbert",
        },
    )


@dataclass
class TinyBertCompressOptions(CompressOptions, tinybert.TinyBertOptions):
    """The options of `bertkd compress --method tinybert`."""


@dataclass
class DynaBertCompressOptions(CompressOptions, dynabert.DynaBertOptions):
    """The options of `bertkd compress --method dynabert`."""


Run = TaskRun[Any, Any]


def own_classes(method: Method) -> tuple[type[CompressOptions], type[RunOptions]]:
    """The options of this command for a method, and those of the method's own command."""
    if method.student == "shape":
        return TinyBertCompressOptions, tinybert.TinyBertOptions
    if method.student == "pruned":
        return CompressOptions, PruneOptions
    if method.student == "supernet":
        return DynaBertCompressOptions, dynabert.DynaBertOptions
    return CompressOptions, TrainOptions


def parse(argv: Sequence[str] | None) -> Run:
    """The command line, with the options of the method that it names.

    Raises:
        ValueError: an unknown method, several seeds, an option that the method sets itself, or a model to start from
            where the method has a start of its own.
        SystemExit: an unknown option.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    method = method_named(option_value(words, "method") or DEFAULT_METHOD)
    for name, value in method.settings.items():
        if typed_value(words, name) not in (None, str(value)):
            raise ValueError(f"--method {method.name} sets --{name} to {value}: leave --{name} out.")
        if option_value(words, name) not in (None, str(value)):
            note(f"--method {method.name} sets --{name} to {value}, not what the settings file has.")

    # DistilBERT's second step is vanilla KD.
    config_class = method_named("kd").config_class if method.student == "pretrained" else method.config_class
    defaults = {} if method.student == "pretrained" else dict(method.defaults)
    if method.student == "supernet":
        defaults["init_from"] = "teacher"

    runs: list[Run] = parse_runs(
        "compress", str(__doc__), config_class, argv, {**defaults, **DEFAULTS}, own_classes(method)[0]
    )
    options = one_run(runs, "What is to be deployed is one model.")
    if method.student == "pruned" and starts_elsewhere(options.models):
        # Other commands call the model that they work on by the name that is wrong here.
        resolve.required_teacher(options.models)
        raise ValueError(
            "The student of --method pruned is pruned out of the teacher, and starts from nothing else: leave "
            "--model_name_or_path, --init_from and --student_layers out, or name a paper's method with --method."
        )
    check_start(method, options.models)
    return replace(options, config=with_changes(options.config, **method.settings))


def check_start(method: Method, models: ModelOptions) -> None:
    """Checks that nothing says what the student starts from where the method, or the measured size, says it.

    Raises:
        ValueError: something does.
    """
    given = []
    if models.init_from == "teacher" and (method.student in ("shape", "pretrained") or method.command == "finetune"):
        given.append("--init_from teacher")
    if models.model_name_or_path is not None and method.student == "pretrained":
        given.append("--model_name_or_path")
    # A list has a number of layers, and that is what is chosen.
    if models.student_layers not in LAYER_STRATEGIES or (
        method.student in ("shape", "pretrained") and models.student_layers != ModelOptions().student_layers
    ):
        given.append(f"--student_layers {models.student_layers}")
    if given:
        raise ValueError(
            f"--method {method.name} has a start of its own for the student of the size that is chosen: leave "
            f"{' and '.join(given)} out, or train with `bertkd {method.command}`."
        )


def starts_elsewhere(models: ModelOptions) -> bool:
    """Whether options say what a student starts from."""
    names = ("model_name_or_path", "init_from", "student_layers")
    return any(getattr(models, name) != getattr(ModelOptions(), name) for name in names)


def compress(options: Run) -> dict[str, Any]:
    """Chooses, trains, exports and measures; returns the content of compress.json."""
    own, models, folder = options.own, options.models, output_folder(options.config)
    method = method_named(own.method)
    goal = goal_of(method, own)

    # What cannot work ends before anything is trained.
    require_engine(own.engine, own.precision)
    quantization_schemes(own.engine, own.precision)
    export.accuracy_check_of(own)
    teacher_name = resolve.required_teacher(models)
    check_length(teacher_name, load_config(resolve_model_name(teacher_name), "teacher"), own.sequence_length)
    if method.student == "pretrained" and not (own.corpus_files and own.language_model):
        raise ValueError(
            "DistilBERT learns from plain text before the task: name it with --corpus_files, and the model that "
            "teaches there, with a head for masked words, with --language_model."
        )

    student = folder / "student"
    if method.student == "pruned":
        choice = prune_and_train(goal, options, student)
    elif method.student == "supernet":
        choice = train_and_search(method, options, folder)
    else:
        kept_in = None if own.dry_run else folder
        size, choice = choose_size(
            sizes_of(method, options), goal, lambda: load_model(teacher_name), kept_in, asked(options), own.method
        )
        print(f"\nThe largest student within {goal.limit}: {size.name} ({choice.predicted:.4g} {goal.limit.unit}).")
        train(method, options, size, folder)
    if own.dry_run:
        return {"method": own.method, "predicted": choice.predicted}

    exported = export.export(deployed_options(options, student, folder / "deployed"))
    outcome = outcome_of(goal, choice, teacher_name, student, folder / "deployed", exported)
    answer = {
        "method": own.method,
        "budget": outcome.budget,
        "unit": outcome.unit,
        "predicted": choice.predicted,
        "measured": outcome.measured,
        "is_within_budget": outcome.is_within,
        "teacher_ms": outcome.teacher,
        "teacher_ms_now": outcome.teacher_now,
        "student": student.name,
        "exported": asdict(exported),
        "command": options.command,
        **environment(ENGINE_PACKAGES),
    }
    write_json(folder / "compress.json", answer)
    page = write_report(folder, teacher_name, student, exported)

    print(f"\n{outcome}\nStudent: {student}\nTo deploy: {folder / 'deployed'}\nReport: {page}")
    return answer


@dataclass(frozen=True)
class Outcome:
    """What was asked for, and what came out.

    Attributes:
        budget: in the unit; for a share that was asked for, the number that it stands for.
        unit: of the budget.
        measured: what the deployed model costs, or the points that it lost.
        teacher: the milliseconds of the teacher beside which it was timed, where it was: when the size was chosen.
        teacher_now: what the teacher took beside it.
    """

    budget: float
    unit: str
    measured: float
    teacher: float | None = None
    teacher_now: float | None = None

    @property
    def is_within(self) -> bool:
        """Whether the budget is met; a difference of two accuracies is not exact to the last digit."""
        return self.measured <= self.budget or math.isclose(self.measured, self.budget)

    def __str__(self) -> str:
        verdict = "within the budget" if self.is_within else "OVER the budget"
        asked = f"{self.budget:.4g} {self.unit} asked for: measured {self.measured:.4g}"
        if self.teacher is None or self.teacher_now is None:
            return f"{asked}, {verdict}."

        # By ratios, a machine that is busy for a while changes nothing.
        now = self.measured * self.teacher_now / self.teacher
        text = (
            f"{asked} where the teacher takes {self.teacher:.4g}, as when the size was chosen: {verdict}. Now the "
            f"teacher takes {self.teacher_now:.4g}, and this model {now:.4g}."
        )
        if not 1 / OTHER_SPEED < self.teacher_now / self.teacher < OTHER_SPEED:
            text += (
                " That is another machine, or a busier or quieter one: to choose a size by its clock, start with "
                "another --output_dir."
            )
        return text


def outcome_of(
    goal: Goal,
    choice: Choice,
    teacher_name: str,
    student: Path,
    deployed: Path,
    exported: ExportResult,
) -> Outcome:
    """Measures what was deployed, in the unit of the budget.

    Args:
        goal: what was asked for.
        choice: what the size was chosen by. Where the teacher was timed then, this model is timed in turns with it,
            at the teacher's speed of then.
        teacher_name: the model that was compressed.
        student, deployed: the folders of the student and of its export.
        exported: the record of the export.
    """
    budget, unit = choice.budget, goal.limit.unit
    if choice.teacher_value is not None:
        return Outcome(budget, unit, 100 * (choice.teacher_value - exported.value))
    if unit == "ms" and choice.whole is not None:
        teacher = load_model(teacher_name)
        measured, now = goal.deployment.milliseconds_beside(teacher, choice.whole, deployed)
        return Outcome(budget, unit, measured, choice.whole, now)

    if unit == "ms":
        return Outcome(budget, unit, goal.deployment.milliseconds(deployed))
    if unit == "gflops":
        return Outcome(budget, unit, goal.cost(load_model(str(student))))
    return Outcome(budget, unit, exported.size_mb if unit == "mb" else exported.parameters)


def goal_of(method: Method, own: CompressOptions) -> Goal:
    """What the deployed model may cost.

    Raises:
        ValueError: no budget, or points with a paper's method: only the method "pruned" has a curve to choose from.
    """
    limit = Limit(own.budget, own.unit)
    if method.student != "pruned" and limit.unit not in COST_UNITS:
        raise ValueError(
            f"--unit {limit.unit}: --method {method.name} needs a budget in {', '.join(COST_UNITS)}; leave --method "
            "out for this one."
        )
    return Goal(limit, own.deployment())


def asked(options: Run) -> dict[str, Any]:
    """Everything that the choice of a size depends on; what only the export reads may change afterwards."""
    names = {member.name for member in fields(CompressOptions)} - {member.name for member in fields(TrainOptions)}
    names -= NOT_FOR_THE_SIZE
    values = {name: getattr(options.own, name) for name in sorted(names)}
    teacher = {"teacher_model_name_or_path": options.models.teacher_model_name_or_path}
    return {**values, **teacher, "contents": content_digests({**asdict(options.models), **values})}


def write_report(folder: Path, teacher_name: str, student: Path, exported: ExportResult) -> Path:
    """Writes the page of teacher, student and export; returns its path."""
    runs = tuple(filter(None, (RunResult.of(teacher_name), RunResult.of(student))))
    page = folder / "report.html"
    write_text(page, render_page([ReportSet("", runs, (exported,))]))
    return page


# ---- what to train ----


def sizes_of(method: Method, options: Run) -> list[Size]:
    """The students of a method that may be trained, the largest first."""
    own, models = options.own, options.models
    teacher = load_model(resolve.required_teacher(models), what="teacher")

    if method.student == "pretrained":
        language_model = load_language_model(resolve_model_name(own.language_model))
        check_vocabularies(language_model.config, teacher.config)
        return general_sizes(language_model, int(teacher.config.num_labels or 0))

    if method.student == "shape":
        if models.model_name_or_path is not None:
            name = models.model_name_or_path
            return [Size(name, lambda: load_model(name, needs_head=False))]
        return shape_sizes(teacher, own.unit)

    if models.model_name_or_path is not None:
        teacher = load_model(models.model_name_or_path, needs_head=False)
    return depth_sizes(teacher, method.least_layers)


# ---- training ----


def training_options(method: Method, options: Run, folder: Path, **models: Any) -> Run:
    """The options of the student's training, as the method's own command would have them."""
    own_type = own_classes(method)[1]
    values = {member.name: getattr(options.own, member.name) for member in fields(own_type)}
    return replace(
        options,
        models=replace(options.models, **models),
        own=own_type(**values),
        config=with_changes(options.config, output_dir=str(folder), push_to_hub=False),
    )


def train(method: Method, options: Run, size: Size, folder: Path) -> None:
    """Trains the student of the chosen size, in the folder "student" within."""
    student = folder / "student"
    models = options.models

    if method.student == "pretrained":
        general = pretrain(options, size, folder)
        if options.own.dry_run:  # the second step starts from what the first leaves
            return
        own = training_options(method, options, student, model_name_or_path=str(general))
        own = replace(own, own=replace(own.own, result_name=own.own.result_name or "distilbert-kd"))
        run_or_resume(own, kd.train)
    elif method.student == "shape":
        own = training_options(method, options, student)
        if size.shape is not None:
            own = replace(own, own=replace(own.own, student_shape=None, **asdict(size.shape)))
        run_or_resume(own, tinybert.train)
    elif method.command == "finetune":
        # Fine-tuning alone takes the teacher for a checkpoint like any other.
        start = models.model_name_or_path or models.teacher_model_name_or_path
        own = training_options(method, options, student, num_student_layers=len(size.layers), model_name_or_path=start)
        run_or_resume(own, finetune.train)
    else:
        init_from = "teacher" if models.model_name_or_path is None else models.init_from
        own = training_options(method, options, student, num_student_layers=len(size.layers), init_from=init_from)
        run_or_resume(own, lambda run: kd.distill_run(run, method.name, method.trainer_class))


def pretrain(options: Run, size: Size, folder: Path) -> Path:
    """Runs DistilBERT's first step; returns the folder of the general student."""
    general = folder / "pretrained"
    words = ["--config", options.own.pretrain_config, *(["--use_cpu"] if options.config.use_cpu else [])]
    defaults = {**CORPUS_DEFAULTS, **distilbert.DEFAULTS}
    (settings,) = parse_runs(
        "distilbert", "", DistilBertKDConfig, words, defaults, distilbert.DistilBertOptions, CorpusOptions
    )

    # What the command says of the run holds for both steps; the rest of its settings are the second step's.
    given = {name: getattr(options.config, name) for name in OF_BOTH_STEPS}
    given = {name: value for name, value in given.items() if value != options.default_config.get(name)}
    given["disable_tqdm"] = options.config.disable_tqdm
    layers = ",".join(map(str, size.layers))
    own = Options(
        models=replace(
            settings.models,
            teacher_model_name_or_path=options.own.language_model,
            num_student_layers=len(size.layers),
            student_layers=layers,
        ),
        data=replace(settings.data, corpus_files=options.own.corpus_files),
        own=replace(settings.own, dry_run=options.own.dry_run),
        config=with_changes(settings.config, output_dir=str(general), **given),
        command=options.command,
        default_config=settings.default_config,
    )
    run_or_resume(own, distilbert.train, StageResult)
    return general


def prune_and_train(goal: Goal, options: Run, student: Path) -> Choice:
    """Prunes the teacher to the goal and distills the student; returns what its size was chosen by."""
    own = options.own
    pruning = Pruning([goal.limit], goal.deployment, own.pruning_rows, has_curve=True)
    data = resolve.task_data(options)
    # What only the export reads may change after the training.
    values = {member.name: getattr(own, member.name) for member in fields(PruneOptions) if hasattr(own, member.name)}
    training = replace(options, own=PruneOptions(**{**values, "budget": [own.budget]}))
    train_pruned(
        training.experiment(),
        data,
        resolve.teacher(options, data.task),
        pruning,
        with_changes(options.config, output_dir=str(student), push_to_hub=False),
        options.models.ignore_weak_teacher,
    )
    if own.dry_run:
        return UNKNOWN

    facts = read_json(student / START / FILE)
    value = facts["curve"][0]["value"] if goal.limit.unit == "points" else None
    return Choice(facts["budget"], facts["measured"], facts["whole"], value)


def train_and_search(method: Method, options: Run, folder: Path) -> Choice:
    """Trains DynaBERT's supernet, and takes the best sub-network within the budget out of it.

    Returns:
        What the size of the student was chosen by, which lies in the folder "student" within.
    """
    student, own = folder / "student", options.own
    # Of another method that was asked for in this folder before.
    check_no_training(student)
    run_or_resume(training_options(method, options, folder / "supernet"), dynabert.train)
    if own.dry_run:
        return UNKNOWN

    shared = {member.name for member in fields(SearchOptions)} & {member.name for member in fields(own)}
    values = {name: getattr(own, name) for name in sorted(shared)}
    answer = search.search(
        replace(
            options,
            models=replace(
                options.models,
                model_name_or_path=str(folder / "supernet" / "finetune"),
                teacher_model_name_or_path=None,
                init_from="pretrained",
            ),
            own=SearchOptions(**values),
            config=with_changes(options.config, output_dir=str(student), alpha=0.0, push_to_hub=False),
        )
    )
    return Choice(answer["budget"], answer["predicted"], answer["whole"])


def deployed_options(options: Run, student: Path, folder: Path) -> Run:
    """The options of the student's export."""
    values = {member.name: getattr(options.own, member.name) for member in fields(ExportOptions)}
    # The folder within, which is uploaded, has the same name in every compression.
    repository = options.config.hub_model_id or output_folder(options.config).resolve().name
    return replace(
        options,
        models=replace(options.models, model_name_or_path=str(student)),
        own=ExportOptions(**values),
        config=with_changes(options.config, output_dir=str(folder), hub_model_id=repository),
    )


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    """Compresses one teacher."""
    quiet()
    options = parse(argv)
    check_outputs([options])
    note_slow_int8(options.own)
    if options.own.dry_run:
        return compress(options)
    with folder_in_use(output_folder(options.config), options.command):
        return compress(options)
