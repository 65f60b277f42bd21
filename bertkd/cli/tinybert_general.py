"""TinyBERT's general distillation: a small student learns a pretrained model's attention and states on plain text.

    bertkd tinybert-general --teacher_model_name_or_path bert-base-uncased --student_shape TinyBERT4 \
        --corpus_files wikipedia.txt --output_dir outputs/general

The teacher is pretrained, not fine-tuned. `bertkd tinybert` starts from the folder (--model_name_or_path).
"""

from collections.abc import Sequence

from transformers import AutoModel, PreTrainedModel

from bertkd import TinyBertKDConfig, TinyBertKDTrainer, drop_layers
from bertkd.cli import resolve
from bertkd.cli.commands import CorpusRun, train_on_corpus
from bertkd.cli.options import ShapeOptions
from bertkd.cli.tinybert import check_trainer_stage
from bertkd.models.loading import load_checkpoint
from bertkd.pipeline import resolve_model_name, train_on_text
from bertkd.pipeline.models import is_released_tinybert, projection_folder
from bertkd.records import StageResult
from bertkd.students import layers_to_keep

Run = CorpusRun[ShapeOptions, TinyBertKDConfig]


def train(options: Run) -> StageResult | None:
    """Trains one student."""
    check_trainer_stage(options.config, "general")
    models, config = options.models, options.config
    if models.teacher_model_name_or_path is None:
        raise ValueError("Name the pretrained teacher with --teacher_model_name_or_path.")

    name = resolve_model_name(models.teacher_model_name_or_path)
    teacher = load_checkpoint(AutoModel, name, what="teacher")
    tokenizer = resolve.tokenizer_for(models)
    student = start_of_student(options, teacher)

    return train_on_text(
        options.experiment(),
        resolve.corpus_rows(options, tokenizer),
        student,
        config,
        TinyBertKDTrainer,
        "tinybert-general",
        tokenizer,
        auto_class="AutoModel",
        untrained="pooler and head are",
        teacher=teacher,
        # A projection that an earlier distillation has trained goes on.
        projection_from=config.projection_from or projection_folder(models.model_name_or_path),
    )


def start_of_student(options: Run, teacher: PreTrainedModel) -> PreTrainedModel:
    """The student at its start: a checkpoint to go on with, some of the teacher's layers, or random weights.

    Raises:
        ValueError: a checkpoint that has been through general distillation already, or no shape.
    """
    models = options.models
    if models.model_name_or_path is not None:
        if is_released_tinybert(models.model_name_or_path):
            raise ValueError(
                f"{models.model_name_or_path} is a checkpoint as TinyBERT's authors released it, which has been "
                "through general distillation: `bertkd tinybert` starts from it."
            )
        return load_checkpoint(AutoModel, resolve_model_name(models.model_name_or_path))

    if models.init_from == "teacher":
        depth = teacher.config.num_hidden_layers
        keep = layers_to_keep(models.student_layers, depth, resolve.layer_count(models) or depth)
        return drop_layers(teacher, keep).requires_grad_(True)

    return resolve.new_student(models, options.own, options.config.seed, teacher)


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    """Trains one student per seed."""
    # The released code's.
    defaults = {"stage": "general", "learning_rate": 5e-5, "num_train_epochs": 3}
    return train_on_corpus("tinybert-general", str(__doc__), TinyBertKDConfig, train, argv, defaults, ShapeOptions)
