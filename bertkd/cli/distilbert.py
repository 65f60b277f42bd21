"""DistilBERT's pretraining: from a masked language model and a corpus to a general student with half of its layers.

    python recipes/distilbert_pretrain.py --config recipes/configs/distilbert/original.yaml \
        --teacher_model_name_or_path bert-base-uncased --corpus_files wikipedia.txt --output_dir outputs/distilbert

The folder is an ordinary DistilBERT; recipes/finetune_teacher.py (--model_name_or_path) fine-tunes it on a task, and
recipes/kd.py does so with a fine-tuned teacher, the paper's second step.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from transformers import AutoTokenizer, PreTrainedModel, set_seed

from bertkd import DistilBertKDConfig, DistilBertKDTrainer
from bertkd.cli.arguments import ModelArguments, RecipeArguments, Run
from bertkd.cli.loading import load_language_model, number_of_layers, resolve
from bertkd.cli.stages import run_stage, train_on_text
from bertkd.distilbert import distilbert_layers, distilbert_student
from bertkd.records import StageResult
from bertkd.students import layers_to_keep

PAPER = "distilbert"  # which layers: `distilbert_layers`


@dataclass
class DistilBertArguments(RecipeArguments):
    """How the student starts."""

    fold_token_types: bool = field(
        default=True, metadata={"help": "Add the teacher's token type 0 to the positions; no: the released code."}
    )
    random_start: bool = field(default=False, metadata={"help": "Start with random weights (the paper's ablation)."})


def pretrain(run: Run[DistilBertKDConfig]) -> StageResult:
    """Train one student."""
    if run.model.teacher_model_name_or_path is None:
        raise ValueError("Name the masked language model to learn from with --teacher_model_name_or_path.")
    name = resolve(run.model.teacher_model_name_or_path)
    teacher = load_language_model(name)
    tokenizer = AutoTokenizer.from_pretrained(run.model.tokenizer_name or name)
    student = start_of_student(run, teacher)
    card = {"auto_class": "AutoModelForMaskedLM", "untrained": "a classification head is"}
    return train_on_text(run, "distilbert", DistilBertKDTrainer, student, teacher, tokenizer, **card)


def start_of_student(run: Run[DistilBertKDConfig], teacher: PreTrainedModel) -> PreTrainedModel:
    """A checkpoint to go on with, or some of the teacher's layers, or their shape with random weights."""
    arguments = run.model
    if arguments.model_name_or_path is not None:
        if run.recipe.random_start:
            raise ValueError("--random_start and --model_name_or_path are two ways to start: give one of them.")
        return load_language_model(resolve(arguments.model_name_or_path)).train()
    keep = layers_of(arguments, teacher.config.num_hidden_layers)
    student = distilbert_student(teacher, keep, run.recipe.fold_token_types)
    if not run.recipe.random_start:
        return student
    set_seed(run.training.seed)
    return type(student)(student.config)


def layers_of(arguments: ModelArguments, depth: int) -> list[int]:
    """The teacher's layers that the student starts from: the paper's, or those that are named.

    Raises:
        ValueError: a number of layers without their names, or names that do not fit.
    """
    named, count = arguments.student_layers, arguments.num_student_layers
    if named == PAPER:
        layers = distilbert_layers(depth)
        if count not in (None, len(layers)):
            raise ValueError(
                f"The paper's layers of {depth} are {', '.join(map(str, layers))}: for another number name them too, "
                "e.g. --student_layers 0,3, or first, every, last."
            )
        return layers
    return layers_to_keep(named, depth, number_of_layers(arguments) or len(distilbert_layers(depth)))


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    # The released code's, but for the batch, which its README makes 4,000 and more by accumulation.
    defaults = {
        "student_layers": PAPER,
        "corpus_min_tokens": 12,
        "corpus_max_unknown": 0.5,
        "learning_rate": 5e-4,
        "num_train_epochs": 3,
        "adam_beta2": 0.98,
        "adam_epsilon": 1e-6,
        "max_grad_norm": 5.0,
        "warmup_steps": 0.05,
        "weight_decay": 0.0,
    }
    return run_stage(argv, DistilBertKDConfig, pretrain, defaults, DistilBertArguments)
