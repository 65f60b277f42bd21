"""TinyBERT's general distillation: a small student learns a pretrained model's attention and states on plain text.

    python recipes/tinybert_general.py --teacher_model_name_or_path bert-base-uncased --student_shape TinyBERT4 \
        --corpus_files wikipedia.txt --output_dir outputs/general

The teacher is pretrained, not fine-tuned. The folder is where recipes/tinybert.py starts (--model_name_or_path).
"""

from collections.abc import Sequence

import torch
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from bertkd import TinyBertKDConfig, TinyBertKDTrainer, drop_layers
from bertkd.cli.arguments import Run, StudentArguments, with_changes
from bertkd.cli.loading import is_released, make_small_student, number_of_layers, projection_beside, resolve
from bertkd.cli.stages import check_stage, run_stage, train_on_text
from bertkd.records import StageResult
from bertkd.students import layers_to_keep


def general_distillation(run: Run[TinyBertKDConfig]) -> StageResult:
    """Train one student."""
    check_stage(run, "general")
    if run.model.teacher_model_name_or_path is None:
        raise ValueError("Name the pretrained teacher with --teacher_model_name_or_path.")
    name = resolve(run.model.teacher_model_name_or_path)
    teacher = AutoModel.from_pretrained(name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(run.model.tokenizer_name or name)
    card = {"auto_class": "AutoModel", "untrained": "pooler and head are"}
    # A projection that an earlier distillation has trained goes on.
    projection = run.training.projection_from or projection_beside(run.model.model_name_or_path)
    args = with_changes(run.training, projection_from=projection)
    student = _student(run, teacher)
    return train_on_text(run, "tinybert-general", TinyBertKDTrainer, student, teacher, tokenizer, args, **card)


def _student(run: Run[TinyBertKDConfig], teacher: PreTrainedModel) -> PreTrainedModel:
    arguments = run.model
    if arguments.model_name_or_path is not None:
        if is_released(arguments.model_name_or_path):
            raise ValueError(
                f"{arguments.model_name_or_path} is a checkpoint as TinyBERT's authors released it, which has been "
                "through general distillation: recipes/tinybert.py starts from it."
            )
        return AutoModel.from_pretrained(resolve(arguments.model_name_or_path), dtype=torch.float32)
    if arguments.init_from == "teacher":
        depth = teacher.config.num_hidden_layers
        keep = layers_to_keep(arguments.student_layers, depth, number_of_layers(arguments) or depth)
        return drop_layers(teacher, keep).requires_grad_(True)
    return make_small_student(run, teacher)


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    defaults = {"stage": "general", "learning_rate": 5e-5, "num_train_epochs": 3}  # the released code's
    return run_stage(argv, TinyBertKDConfig, general_distillation, defaults, StudentArguments)
