"""Distills a model into itself while it is rounded to int8, so that an export in int8 loses less."""

import copy
import tempfile

from torch import nn
from transformers import PreTrainedModel

from bertkd.distillation import DistillationConfig
from bertkd.distillation.trainer_hooks import forget_preparation
from bertkd.models.fake_quantized import fake_quantized
from bertkd.pipeline.task_data import TaskData
from bertkd.pruning import PrunedKDConfig, PrunedKDTrainer

__all__ = ["distilled_for_int8"]

# A model that is trained has little to learn, and a higher rate would move it away from itself.
BATCH, LEARNING_RATE = 32, 1e-5


def distilled_for_int8(
    model: PreTrainedModel, data: TaskData, config: DistillationConfig, rows: int, has_half_range: bool = False
) -> PreTrainedModel:
    """A copy of a model that gives the model's own answers and hidden states when it computes in int8.

    The model teaches its copy, whose linear maps are rounded (`fake_quantized`), by the loss of `PrunedKDTrainer`. No
    labels are read, and the copy leaves with ordinary weights, in float32.

    Args:
        model: the trained model; it stays as it is.
        data: the task, of which training rows are drawn.
        config: says where it computes, in which precision, and the seed.
        rows: how many training rows are seen; where the task has fewer, they are seen again.
        has_half_range: whether the export will have weights of half of int8's range, see `fake_quantized`.
    """
    print(f"\nInt8 loses more than 0.3 points: the model learns to bear it, on {rows} training rows.", flush=True)
    student = copy.deepcopy(model).float()
    for module in student.modules():
        # What is learned is to do the same again: dropout would only move the copy away from its model.
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    train = data.splits["train"].shuffle(seed=config.seed)
    train = train.select(range(min(rows, len(train))))
    # Nothing reads them, and a model may have its labels in another order.
    train = train.select_columns([name for name in train.column_names if name != "label"])

    with tempfile.TemporaryDirectory() as work, fake_quantized(student, has_half_range):
        settings = PrunedKDConfig(
            output_dir=work,
            use_cpu=config.use_cpu,
            bf16=config.bf16,
            fp16=config.fp16,
            seed=config.seed,
            learning_rate=LEARNING_RATE,
            per_device_train_batch_size=BATCH,
            freeze_embeddings=False,
            max_steps=max(1, rows // BATCH),
            warmup_steps=0.1,
            eval_strategy="no",
            save_strategy="no",
            disable_tqdm=config.disable_tqdm,
            report_to=[],
        )
        trainer = PrunedKDTrainer(
            model=student,
            teacher_model=copy.deepcopy(model).float(),
            args=settings,
            train_dataset=train,
            processing_class=data.tokenizer,
        )
        trainer.train()
        # Without the mixed precision that was wrapped around it, which an export would trace.
        student = trainer.model
        forget_preparation(trainer.accelerator, student)
    nn.Module.to(student, "cpu")
    return student
