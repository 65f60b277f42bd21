"""TinyBERT's general distillation: a small student learns a pretrained model's attention and states on plain text.

    python recipes/tinybert_general.py --teacher_model_name_or_path bert-base-uncased --student_shape TinyBERT4 \
        --corpus_files wikipedia.txt --output_dir outputs/general

The teacher is pretrained, not fine-tuned. The folder is where recipes/tinybert.py starts (--model_name_or_path).
"""

from collections.abc import Sequence

import torch
from arguments import Run, StudentArguments
from experiment import run_script
from loading import make_small_student, resolve
from stages import check_stage, run_stage, train_on_text
from transformers import AutoModel, AutoTokenizer, PreTrainedModel

from bertkd import TinyBertKDConfig, TinyBertKDTrainer, drop_layers
from bertkd.models import layers_to_keep
from bertkd.report import StageResult


def general_distillation(run: Run[TinyBertKDConfig]) -> StageResult:
    """Train one student."""
    check_stage(run, "general")
    if run.model.teacher_model_name_or_path is None:
        raise ValueError("Name the pretrained teacher with --teacher_model_name_or_path.")
    name = resolve(run.model.teacher_model_name_or_path)
    teacher = AutoModel.from_pretrained(name, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(run.model.tokenizer_name or name)
    card = {"auto_class": "AutoModel", "untrained": "pooler and head are"}
    student = _student(run, teacher)
    return train_on_text(run, "tinybert-general", TinyBertKDTrainer, student, teacher, tokenizer, **card)


def _student(run: Run[TinyBertKDConfig], teacher: PreTrainedModel) -> PreTrainedModel:
    arguments = run.model
    if arguments.model_name_or_path is not None:
        return AutoModel.from_pretrained(resolve(arguments.model_name_or_path), dtype=torch.float32)
    if arguments.init_from == "teacher":
        depth = teacher.config.num_hidden_layers
        keep = layers_to_keep(arguments.student_layers, depth, arguments.num_student_layers or depth)
        return drop_layers(teacher, keep).requires_grad_(True)
    return make_small_student(run, teacher)


def main(argv: Sequence[str] | None = None) -> list[StageResult]:
    defaults = {"stage": "general", "learning_rate": 5e-5, "num_train_epochs": 3}  # the released code's
    return run_stage(argv, TinyBertKDConfig, general_distillation, defaults, StudentArguments)


if __name__ == "__main__":
    run_script(main)
