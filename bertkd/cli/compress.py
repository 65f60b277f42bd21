"""From a fine-tuned teacher to a folder to deploy, in one command: method, budget, engine and precision.

    python recipes/compress.py --teacher_model_name_or_path outputs/teacher --task_name sst2 --glue_dir GLUE \
        --method pkd-skip --budget 5 --unit ms --engine openvino --precision int8 --output_dir outputs/small

The largest student of the method that is within the budget in that engine and precision is found by measuring, before
anything is trained; DynaBERT trains first and searches its network of many sizes. The student is trained by the
method's own recipe, exported, and measured once more. All other options go to that recipe, as does --config; what is
done is not done again, so a killed command goes on when it is started once more.
"""

import argparse
import dataclasses
import json
import math
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from bertkd import DistillationConfig, DynaBertKDConfig, PatientKDConfig, TinyBertKDConfig, drop_layers
from bertkd.atomic import write_json, write_text
from bertkd.cli import distilbert as distilbert_pretrain
from bertkd.cli import dynabert, export, kd, patient_kd, search, tinybert
from bertkd.cli import finetune as finetune_teacher
from bertkd.cli.arguments import RecipeArguments, Run, command_line, parse, with_changes
from bertkd.cli.experiment import check_writable, quiet
from bertkd.cli.export import ExportArguments
from bertkd.cli.loading import load_language_model, load_model, resolve
from bertkd.distilbert import distilbert_layers, distilbert_student
from bertkd.distillation.checks import check_vocabularies
from bertkd.efficiency import count_parameters, measure_latency
from bertkd.export import (
    ENGINE_PACKAGES,
    ENGINES,
    PRECISIONS,
    exported_size_mb,
    open_exported,
    quantization_schemes,
    random_batches,
    require_engine,
    write_export,
)
from bertkd.models import layer_sizes
from bertkd.records import ReportSet, environment, read_result, render_page
from bertkd.students import Shape, layers_to_keep, small_student

UNITS = ("ms", "mb", "parameters")
# Shares of the teacher's layers and hidden size that a new student may have.
SHARES = (1.0, 0.75, 0.5, 0.375, 0.25)
# Recipe, its config, and its own arguments.
RECIPES: dict[str, tuple[Any, type[DistillationConfig], type[RecipeArguments]]] = {
    "finetuned": (finetune_teacher, DistillationConfig, RecipeArguments),
    "kd": (kd, DistillationConfig, RecipeArguments),
    "pkd-skip": (patient_kd, PatientKDConfig, RecipeArguments),
    "pkd-last": (patient_kd, PatientKDConfig, RecipeArguments),
    "distilbert": (kd, DistillationConfig, RecipeArguments),
    "tinybert": (tinybert, TinyBertKDConfig, tinybert.TinyBertArguments),
    "dynabert": (dynabert, DynaBertKDConfig, dynabert.DynaBertArguments),
}


@dataclass(frozen=True)
class Size:
    """A student that might be trained: what it is called, the recipe's options for it, and how one is made."""

    name: str
    options: tuple[str, ...]
    make: Callable[[], PreTrainedModel]


def main(argv: Sequence[str] | None = None) -> dict[str, Any]:
    quiet()
    options, rest = parse_arguments(argv)
    require_engine(options.engine, options.precision)
    quantization_schemes(options.engine, options.precision)
    if options.method == "distilbert" and not (options.corpus_files and options.language_model):
        raise ValueError(
            "DistilBERT learns from plain text before the task: name it with --corpus_files, and the model that "
            "teaches there, with a head for masked words, with --language_model."
        )
    folder = Path(options.output_dir)
    check_writable(folder)
    recipe, config_class, recipe_class = RECIPES[options.method]
    teacher = ["--teacher_model_name_or_path", options.teacher_model_name_or_path]
    run, *more = parse(config_class, [*teacher, *rest], {}, recipe_class)
    if more:
        raise ValueError("What is to be deployed is one model: give one --seed.")
    if options.method == "dynabert":
        student, predicted = train_and_search(options, [*teacher, *rest], run, folder)
    else:
        size, predicted = chosen_size(sizes_of(options), options, folder)
        print(f"\nThe largest student within {options.budget:g} {options.unit}: {size.name} ({predicted:.4g}).")
        student = train(options, recipe, size, [*teacher, *rest], folder)
    deployed = dataclasses.replace(
        run,
        model=dataclasses.replace(run.model, model_name_or_path=str(student)),
        recipe=ExportArguments(**{name: getattr(options, name) for name in SHARED}),
        training=with_changes(run.training, output_dir=str(folder / "deployed")),
        command=command_line(argv),
    )
    result = export.export(deployed)
    if options.unit == "ms":
        measured = latency_alone(folder / "deployed", options)
    else:
        measured = result.size_mb if options.unit == "mb" else result.parameters
    answer = {
        "method": options.method,
        "budget": options.budget,
        "unit": options.unit,
        "predicted": predicted,
        "measured": measured,
        "is_within_budget": measured <= options.budget,
        "student": student.name,
        "exported": asdict(result),
        "command": command_line(argv),
        **environment(ENGINE_PACKAGES),
    }
    write_json(folder / "compress.json", answer)
    page = folder / "report.html"
    records = (Path(options.teacher_model_name_or_path) / "results.json", student / "results.json")
    runs = tuple(read_result(path) for path in records if path.is_file())
    write_text(page, render_page([ReportSet("", runs, (result,))]))
    verdict = "within the budget" if measured <= options.budget else "OVER the budget"
    print(
        f"\n{options.budget:g} {options.unit} asked for: predicted {predicted:.4g}, measured {measured:.4g}, {verdict}"
        f"\nStudent: {student}\nTo deploy: {folder / 'deployed'}\nReport: {page}"
    )
    return answer


SHARED = (
    "engine",
    "precision",
    "max_drop",
    "calibration_rows",
    "batch_size",
    "sequence_length",
    "threads",
    "repeats",
)


def parse_arguments(argv: Sequence[str] | None) -> tuple[argparse.Namespace, list[str]]:
    """This recipe's own arguments, and the words that go to the method's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--teacher_model_name_or_path", required=True, help="The fine-tuned teacher.")
    parser.add_argument("--method", choices=[*RECIPES], default="pkd-skip")
    parser.add_argument("--budget", type=float, required=True, help="The most that the deployed model may cost.")
    parser.add_argument("--unit", choices=UNITS, default="ms", help="ms is measured here.")
    parser.add_argument("--engine", choices=ENGINES, default="openvino")
    parser.add_argument("--precision", choices=PRECISIONS, default="int8")
    parser.add_argument("--corpus_files", nargs="+", help="For DistilBERT: plain text to pretrain on.")
    parser.add_argument(
        "--pretrain_config",
        default=str(Path(__file__).parents[1] / "configs/distilbert/small.yaml"),
        help="For DistilBERT: the settings of its pretraining.",
    )
    parser.add_argument("--language_model", help="For DistilBERT: the teacher of the pretraining, for masked words.")
    parser.add_argument("--output_dir", required=True)
    for one in dataclasses.fields(ExportArguments):
        if one.name in SHARED[2:]:
            kind = float if one.name == "max_drop" else int
            parser.add_argument(f"--{one.name}", type=kind, default=one.default, help=one.metadata["help"])
    options, rest = parser.parse_known_args(argv)
    if not options.budget > 0:
        raise ValueError(f"Give a positive --budget, in --unit {options.unit}.")
    return options, rest


# ---- what to train ----


def sizes_of(options: argparse.Namespace) -> list[Size]:
    """The students of the method, the largest first."""
    teacher = load_model(options.teacher_model_name_or_path)
    if options.method == "distilbert":
        language_model = load_language_model(resolve(options.language_model))
        check_vocabularies(language_model.config, teacher.config)
        depths = range(language_model.config.num_hidden_layers, 0, -1)
        return [general_size(language_model, teacher.config.num_labels, count) for count in depths]
    if options.method != "tinybert":
        depth = teacher.config.num_hidden_layers
        least = 2 if options.method.startswith("pkd-") else 1  # the last layer has no level to be patient with
        return [
            Size(
                _layers(count),
                ("--num_student_layers", str(count)),
                lambda count=count: drop_layers(teacher, layers_to_keep("first", depth, count)),
            )
            for count in range(depth, least - 1, -1)
        ]
    return [
        Size(
            f"{shape.num_hidden_layers} layers x {shape.hidden_size}",
            tuple(word for name, value in asdict(shape).items() if value for word in (f"--{name}", str(value))),
            lambda shape=shape: small_student(teacher, shape),
        )
        for shape in shapes_of(teacher, options.unit)
    ]


def general_size(language_model: PreTrainedModel, num_labels: int, count: int) -> Size:
    """What DistilBERT's two steps make of so many layers of the masked language model; its weights are random."""
    depth = language_model.config.num_hidden_layers
    papers = distilbert_layers(depth)
    keep = papers if len(papers) == count else layers_to_keep("every", depth, count)

    def make() -> PreTrainedModel:
        config = distilbert_student(language_model, keep).config
        config.num_labels = num_labels
        return AutoModelForSequenceClassification.from_config(config)

    named = ("--student_layers", ",".join(map(str, keep)))
    return Size(_layers(count), ("--num_student_layers", str(count), *named), make)


def _layers(count: int) -> str:
    return f"{count} layer{'s' if count > 1 else ''}"


def shapes_of(teacher: PreTrainedModel, unit: str) -> list[Shape]:
    """Shapes of shares of the teacher's depth and hidden size, the largest first: for a budget in milliseconds by the
    weights of their layers, else by all parameters, most of which may lie in the embeddings."""
    config, neurons = teacher.config, max(layer_sizes(teacher).neurons)
    heads, found = max(layer_sizes(teacher).heads), set()
    for depth in SHARES:
        for width in SHARES:
            hidden = max(1, round(width * config.hidden_size / heads)) * heads
            inner = max(1, round(neurons * hidden / config.hidden_size))
            found.add(Shape(max(1, math.floor(depth * config.num_hidden_layers)), hidden, inner))

    def weights(one: Shape) -> int:
        with torch.device("meta"):  # nothing is allocated
            count = count_parameters(small_student(teacher, one))
        return count.total - (count.embeddings if unit == "ms" else 0)

    return sorted(found, key=weights, reverse=True)


def chosen_size(sizes: Sequence[Size], options: argparse.Namespace, folder: Path) -> tuple[Size, float]:
    """`largest_within`, or what an earlier start of the same command chose: another measurement may end otherwise."""
    path, asked = folder / "size.json", {name: value for name, value in vars(options).items() if name != "output_dir"}
    known = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    by_name = {size.name: size for size in sizes}  # of another teacher in the same folder, there may be others
    if known.get("asked") == asked and known["size"] in by_name:
        return by_name[known["size"]], float(known["predicted"])
    size, predicted = largest_within(sizes, options)
    write_json(path, {"asked": asked, "size": size.name, "predicted": predicted})
    return size, predicted


def largest_within(sizes: Sequence[Size], options: argparse.Namespace) -> tuple[Size, float]:
    """The first of the sizes, which go from large to small, whose cost is within the budget, and that cost.

    Raises:
        ValueError: the smallest costs more; the message has its cost.
    """

    @cache
    def cost(index: int) -> float:
        found = cost_of(sizes[index].make().eval(), options)
        print(f"{sizes[index].name}: {found:.4g} {options.unit}", flush=True)
        return found

    low, high = 0, len(sizes) - 1
    if cost(high) > options.budget:
        raise ValueError(
            f"No student of {options.method} is within {options.budget:g} {options.unit} with {options.engine} in "
            f"{options.precision}: the smallest, {sizes[high].name}, takes {cost(high):.4g}."
        )
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if cost(middle) <= options.budget else (middle + 1, high)
    return sizes[high], cost(high)


def cost_of(model: PreTrainedModel, options: argparse.Namespace) -> float:
    """What a model costs as it would be deployed; only parameters are known without an export."""
    if options.unit == "parameters":
        return float(count_parameters(model).total)
    with tempfile.TemporaryDirectory() as work:
        way = quantization_schemes(options.engine, options.precision)[0]
        folder = write_export(model, work, options.engine, way, calibration=random_batches(model))
        return exported_size_mb(folder) if options.unit == "mb" else latency_alone(folder, options)


def latency_alone(folder: Path, options: argparse.Namespace) -> float:
    """Milliseconds of a model that nothing takes turns with, as where it serves: its weights stay in the caches."""
    runner = open_exported(folder, options.threads)
    settings = (options.batch_size, options.sequence_length, options.repeats)
    return measure_latency({"model": runner}, *settings, threads=options.threads)["model"].p50_ms


# ---- training ----


def train(options: argparse.Namespace, recipe: Any, size: Size, argv: list[str], folder: Path) -> Path:
    """Train the student by the method's recipe; its folder."""
    student = folder / "student"
    own = [*size.options, "--output_dir", str(student)]
    if options.method.startswith("pkd-"):
        own += ["--strategy", options.method.removeprefix("pkd-")]
    if options.method == "distilbert":
        own = ["--model_name_or_path", str(pretrain(options, size, folder)), "--output_dir", str(student)]
        own += ["--result_name", "distilbert-kd"]
    elif options.method != "tinybert" and "--model_name_or_path" not in argv:
        # From the teacher's layers, which fine-tuning alone takes for a checkpoint like any other.
        teacher = options.teacher_model_name_or_path
        own += ["--model_name_or_path", teacher] if options.method == "finetuned" else ["--init_from", "teacher"]
    recipe.main([*argv, *own])
    return student


def pretrain(options: argparse.Namespace, size: Size, folder: Path) -> Path:
    """DistilBERT's first step."""
    made = folder / "pretrained"
    teacher = ["--teacher_model_name_or_path", options.language_model]
    command = ["--config", options.pretrain_config, *teacher, *size.options]
    distilbert_pretrain.main([*command, "--corpus_files", *options.corpus_files, "--output_dir", str(made)])
    return made


def train_and_search(options: argparse.Namespace, argv: list[str], run: Run, folder: Path) -> tuple[Path, float]:
    """DynaBERT: train the network of many sizes, then take the best one within the budget out of it."""
    dynabert.main([*argv, "--output_dir", str(folder / "supernet")])
    student = folder / "student"
    data = dataclasses.asdict(run.data)
    words = [word for name, value in data.items() if value is not None for word in (f"--{name}", *_words(value))]
    words += ["--model_name_or_path", str(folder / "supernet" / "finetune"), "--output_dir", str(student)]
    words += [
        "--budget",
        str(options.budget),
        "--unit",
        options.unit,
        *(["--use_cpu"] if run.training.use_cpu else []),
    ]
    for name in ("engine", "precision", "batch_size", "sequence_length", "threads", "repeats"):
        if getattr(options, name) is not None:
            words += [f"--{name}", str(getattr(options, name))]
    found = search.main(words)
    return student, float(found["predicted"])


def _words(value: Any) -> list[str]:
    return [str(one) for one in value] if isinstance(value, list) else [str(value)]
