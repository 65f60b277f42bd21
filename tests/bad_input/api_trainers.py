"""Calls of the trainers and their configs that could not do what they say."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from helpers import Collator, StopAt, dataset, rows, tiny_model, word_tokenizer
from torch import nn
from transformers import BertConfig, BertForMaskedLM, BertForTokenClassification, BertModel
from transformers.trainer_utils import HPSearchBackend

import bertkd
from bad_input.cases import ApiCase, Place
from bertkd import (
    DistilBertKDConfig,
    DistilBertKDTrainer,
    DistillationConfig,
    DistillationTrainer,
    DynaBertKDConfig,
    DynaBertKDTrainer,
    PatientKDConfig,
    PatientKDTrainer,
    TinyBertKDConfig,
    TinyBertKDTrainer,
)
from bertkd.models import label_permutation

NAN = math.nan
# The trainer that each config belongs to.
TRAINERS: dict[type, Any] = {
    DistillationConfig: DistillationTrainer,
    PatientKDConfig: PatientKDTrainer,
    TinyBertKDConfig: TinyBertKDTrainer,
    DynaBertKDConfig: DynaBertKDTrainer,
}
SETTINGS: dict[str, Any] = {
    "max_steps": 2,
    "per_device_train_batch_size": 4,
    "logging_steps": 1,
    "save_strategy": "no",
    "use_cpu": True,
    "disable_tqdm": True,
}


def make_config(place: Place, config_class: type = DistillationConfig, **settings: Any) -> Any:
    return config_class(output_dir=str(place.dir / "out"), **{**SETTINGS, **settings})


def make_trainer(
    place: Place,
    config_class: type = DistillationConfig,
    student: Any = None,
    teacher: Any = None,
    data: Any = None,
    arguments: dict[str, Any] | None = None,
    **settings: Any,
) -> Any:
    """A trainer of tiny models; `arguments` are the constructor's, `settings` the config's."""
    return TRAINERS[config_class](
        model=tiny_model(seed=1) if student is None else student,
        teacher_model=tiny_model(seed=2) if teacher is None else teacher,
        args=make_config(place, config_class, **settings),
        train_dataset=dataset(8) if data is None else data,
        data_collator=Collator(),
        **(arguments or {}),
    )


def config_case(name: str, says: str, config_class: type, **settings: Any) -> ApiCase:
    """A config that is refused when it is made."""
    is_number = any(isinstance(value, float) and not math.isfinite(value) for value in settings.values())
    kind = "numbers" if is_number else "options and settings"
    return ApiCase(kind, name, lambda place: make_config(place, config_class, **settings), says)


def label_case(name: str, says: str, labels: list[Any], **arguments: Any) -> ApiCase:
    """Training rows with labels that the loss cannot mean."""

    def train(place: Place) -> None:
        examples = [{**row, "labels": label} for row, label in zip(rows(len(labels)), labels, strict=True)]
        make_trainer(place, data=examples, **arguments).train()

    return ApiCase("labels", name, train, says)


def training_case(kind: Any, name: str, says: str, make: Callable[[Place], Any], **case: Any) -> ApiCase:
    """A trainer that is made, and whose training ends in the sentence."""
    return ApiCase(kind, name, lambda place: make(place).train(), says, **case)


def with_weight(value: float, model: Any = None) -> Any:
    """A model in which one weight is not finite."""
    model = tiny_model() if model is None else model
    with torch.no_grad():
        model.bert.encoder.layer[1].output.dense.weight[0, 0] = value
    return model


def frozen(model: Any) -> Any:
    return model.requires_grad_(False)


def sharing_embeddings(teacher: Any) -> Any:
    student = tiny_model(seed=1)
    student.bert.embeddings = teacher.bert.embeddings
    return student


def words(place: Place) -> tuple[Any, Any]:
    """A masked language model and its tokenizer."""
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertForMaskedLM(BertConfig(vocab_size=50, **sizes)), word_tokenizer(place.dir)


def distilbert(place: Place, settings: dict[str, Any] | None = None, **arguments: Any) -> Any:
    model, tokenizer = words(place)
    data = dataset(8).remove_columns("labels")
    given = {"model": model, "teacher_model": words(place)[0], "train_dataset": data, "processing_class": tokenizer}
    return DistilBertKDTrainer(
        args=make_config(place, DistilBertKDConfig, **(settings or {})), **{**given, **arguments}
    )


class Wrapped(nn.Module):
    """A wrapper whose forward pass names no input, and that does not give the model inside."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        self.config = model.config

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.model(*args, **kwargs)


class Headless(nn.Module):
    """A model without a config."""

    def forward(self, input_ids: torch.Tensor) -> torch.Tensor:
        return input_ids


class MyConfig(DistillationConfig):
    """Adds nothing; a subclass is welcome."""


class BadGradient(DistillationTrainer):
    """A loss that is finite and whose gradient is not: the square root at 0."""

    def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, inputs: Any) -> dict[str, torch.Tensor]:
        zero = (student_outputs.logits * 0).sum()
        return {"root_loss": student_outputs.logits.mean() + zero.sqrt()}


class BadLoss(DistillationTrainer):
    """A loss whose second part is NaN from the second step on."""

    def distillation_loss(self, student_outputs: Any, teacher_outputs: Any, inputs: Any) -> dict[str, torch.Tensor]:
        parts = super().distillation_loss(student_outputs, teacher_outputs, inputs)
        parts["kd_loss"] = parts["kd_loss"] * (NAN if self.state.global_step else 1.0)
        return parts


def make_bad(place: Place, trainer_class: Any, **settings: Any) -> Any:
    return trainer_class(
        model=tiny_model(seed=1),
        teacher_model=tiny_model(seed=2),
        args=make_config(place, **settings),
        train_dataset=dataset(8),
        data_collator=Collator(),
    )


def changed(trainer: Any, **settings: Any) -> Any:
    for name, value in settings.items():
        setattr(trainer.args, name, value)
    return trainer


def interrupted(place: Place, **settings: Any) -> Path:
    """The checkpoint of a training that was stopped after its first step."""
    trainer = make_trainer(place, save_strategy="steps", save_steps=1, **settings)
    trainer.add_callback(StopAt(1))
    trainer.train()
    return place.dir / "out" / "checkpoint-1"


def resume(
    place: Place, damage: Callable[[Path], Any] = lambda _: None, newest: bool = False, **settings: Any
) -> None:
    checkpoint = interrupted(place)
    damage(checkpoint)
    trainer = make_trainer(place, save_strategy="steps", save_steps=1, **settings)
    trainer.train(resume_from_checkpoint=True if newest else str(checkpoint))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def search_trial(place: Place, **values: Any) -> None:
    """One trial of a search that puts `values` into the settings, whose student would need another projection."""
    trainer = PatientKDTrainer(
        model_init=lambda: tiny_model(hidden=8),
        teacher_model=tiny_model(seed=2),
        args=make_config(place, PatientKDConfig, beta=0.0, project_hidden=True),
        train_dataset=dataset(8),
        data_collator=Collator(),
    )
    trainer.hp_search_backend = HPSearchBackend.RAY
    trainer.train(trial=values)


def token_classifier() -> Any:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    return BertForTokenClassification(BertConfig(vocab_size=50, num_labels=3, **sizes))


def evaluate(place: Place, labels: list[Any], student: Any = None, data: Any = None) -> None:
    examples = [{**row, "labels": label} for row, label in zip(rows(len(labels)), labels, strict=True)]
    make_trainer(place, student=student, arguments={"eval_dataset": examples if data is None else data}).evaluate()


CONFIGS = [
    config_case(
        "a temperature of zero", "temperature must be greater than 0, not 0.0", PatientKDConfig, temperature=0.0
    ),
    config_case(
        "an infinite temperature",
        "temperature must be a finite number, not inf",
        DistillationConfig,
        temperature=math.inf,
    ),
    config_case("a weight that is no number", "alpha must be a finite number, not nan", DistillationConfig, alpha=NAN),
    config_case("a patient loss of no number", "beta must be a finite number, not nan", PatientKDConfig, beta=NAN),
    config_case(
        "an infinite weight of hidden states",
        "hidden_weight must be a finite number",
        TinyBertKDConfig,
        hidden_weight=math.inf,
    ),
    config_case(
        "a width that is no number",
        "width_mult_list must be a finite number, not nan",
        DynaBertKDConfig,
        width_mult_list=[NAN],
    ),
    config_case(
        "a learning rate that is no number",
        "learning_rate must be a finite number",
        DistillationConfig,
        learning_rate=NAN,
    ),
    config_case(
        "an infinite weight decay", "weight_decay must be a finite number", DistillationConfig, weight_decay=math.inf
    ),
    config_case(
        "a negative learning rate",
        "learning_rate must be at least 0, not -0.1",
        DistillationConfig,
        learning_rate=-0.1,
    ),
    config_case(
        "a learning rate in text",
        "learning_rate must be a number, not '5e-5'",
        DistillationConfig,
        learning_rate="5e-5",
    ),
    config_case("a seed in text", "seed must be a whole number, not 'first'", DistillationConfig, seed="first"),
    config_case(
        "half a row in a batch",
        "per_device_train_batch_size must be a whole number",
        DistillationConfig,
        per_device_train_batch_size=2.5,
    ),
    config_case(
        "an empty batch",
        "per_device_train_batch_size must be at least 1",
        DistillationConfig,
        per_device_train_batch_size=0,
    ),
    config_case(
        "no accumulation",
        "gradient_accumulation_steps must be at least 1",
        DistillationConfig,
        gradient_accumulation_steps=0,
    ),
    config_case(
        "zero steps, which would mean three epochs", "max_steps must be at least 1", DistillationConfig, max_steps=0
    ),
    config_case(
        "negative epochs", "num_train_epochs must be at least 0, not -1", DistillationConfig, num_train_epochs=-1
    ),
    config_case(
        "a weight above one",
        "alpha weights the soft term and must lie between 0 and 1, not 1.5",
        DistillationConfig,
        alpha=1.5,
    ),
    config_case("a weight in text", "alpha must be a number, not '0.5'", DistillationConfig, alpha="0.5"),
    config_case("no weight at all", "alpha must be a number, not None", DistillationConfig, alpha=None),
    config_case(
        "a yes in text", "project_hidden must be True or False, not 'yes'", PatientKDConfig, project_hidden="yes"
    ),
    config_case(
        "labels as one text, whose letters would pass for labels",
        "teacher_labels must be a list of texts",
        DistillationConfig,
        teacher_labels="no,yes",
    ),
    config_case(
        "one width instead of a list",
        "width_mult_list must be a list of numbers, not 0.5",
        DynaBertKDConfig,
        width_mult_list=0.5,
    ),
    config_case("no layer map", "strategy must be a text, not None", PatientKDConfig, strategy=None),
    config_case("an unknown layer map", "Cannot read the layer map 'every'", PatientKDConfig, strategy="every"),
    config_case(
        "an unknown reduction", "kd_reduction must be one of batchmean, mean", DistillationConfig, kd_reduction="sum"
    ),
    config_case(
        "a filter that would hide losses",
        "logging_nan_inf_filter would hide",
        DistillationConfig,
        logging_nan_inf_filter=True,
    ),
    config_case(
        "smoothed labels", "label_smoothing_factor is not applied", DistillationConfig, label_smoothing_factor=0.1
    ),
    config_case(
        "a cache's precision without a cache",
        "teacher_cache_dtype has no effect without a cache",
        DistillationConfig,
        teacher_cache_dtype="float16",
    ),
    config_case(
        "batches by tokens that drop the last",
        "max_tokens_per_batch uses every row",
        DistillationConfig,
        max_tokens_per_batch=64,
        dataloader_drop_last=True,
    ),
    config_case(
        "batches of no token", "max_tokens_per_batch must be at least 1", DistillationConfig, max_tokens_per_batch=0
    ),
    config_case("alpha for DistilBERT", "alpha=0.3 has no effect.*alpha_ce", DistilBertKDConfig, alpha=0.3),
    config_case(
        "alpha where no prediction is compared",
        "alpha=0.5 has no effect in stage intermediate",
        TinyBertKDConfig,
        alpha=0.5,
    ),
    config_case(
        "alpha where there is no teacher",
        "alpha=0.5 has no effect in stage finetune",
        DynaBertKDConfig,
        stage="finetune",
        alpha=0.5,
    ),
    config_case(
        "the start of a projection that is not there",
        "projection_from has no effect with projection=.none",
        TinyBertKDConfig,
        projection="none",
        projection_from="somewhere",
    ),
    config_case(
        "all parts of a loss left out", "nor all be 0", DistilBertKDConfig, alpha_ce=0.0, alpha_mlm=0.0, alpha_cos=0.0
    ),
    config_case(
        "every token masked", "mlm_probability must lie between 0 and 1", DistilBertKDConfig, mlm_probability=1.0
    ),
    config_case("a width of zero", "must lie in \\(0, 1\\], not 0.0", DynaBertKDConfig, width_mult_list=[0.0]),
]

LABELS = [
    label_case(
        "a class out of range",
        "Row 2 of the training set .* has the label 3, and the student's classes are 0 to 2",
        [0, 1, 3, 2],
    ),
    label_case("a class of -1", "Row 1 of the training set .* has the label -1", [0, -1, 1, 2]),
    label_case("a missing label", "Row 3 of the training set .* has no label \\(None\\)", [0, 1, 2, None]),
    label_case(
        "labels in text", "Row 0 of the training set .* has the text 'yes' for a label", ["yes", "no", "yes", "no"]
    ),
    label_case(
        "classes as fractions",
        "Row 0 .* has the number 1.0 for a label: classes are whole numbers",
        [1.0, 0.0, 2.0, 1.0],
    ),
    label_case(
        "several labels for a row",
        "Row 1 .* is no distribution over 3 classes.*multi-label",
        [[1.0, 0.0, 0.0], [1.0, 1.0, 0.0]],
    ),
    label_case(
        "labels of tokens for a text",
        "Row 0 .* has a list of 4 values for a label: give one class for the whole text",
        [[0, 1, 2, 0], [0, 1, 1, 1]],
    ),
    label_case("rows none of which has a label", "All rows of the training set have the label -100", [-100, -100]),
    label_case(
        "a number that is none",
        "Row 1 .* has the label nan, which is not finite",
        [0.5, NAN],
        student=tiny_model(num_labels=1),
        teacher=tiny_model(num_labels=1),
    ),
    label_case(
        "two numbers for one",
        "Row 0 .* has 2 values for a label, and the student gives 1",
        [[0.5, 1.0], [1.0, 2.0]],
        student=tiny_model(num_labels=1),
        teacher=tiny_model(num_labels=1),
    ),
    label_case(
        "a number in text",
        "Row 0 .* has the text '3.5' for a label: give a number",
        ["3.5", "1"],
        student=tiny_model(num_labels=1),
        teacher=tiny_model(num_labels=1),
    ),
    training_case(
        "labels",
        "a class out of range in a table",
        "Row 5 of the training set .* has the label 7",
        lambda place: make_trainer(
            place, data=Dataset.from_list([{**row, "labels": 7 if i == 5 else 0} for i, row in enumerate(rows(8))])
        ),
    ),
    training_case(
        "labels",
        "a class out of range in a stream",
        "Row 1 of a training batch .* has the label 9",
        lambda place: make_trainer(
            place,
            data=Dataset.from_list(
                [{**row, "labels": 9 if i == 1 else 0} for i, row in enumerate(rows(8))]
            ).to_iterable_dataset(),
        ),
    ),
    training_case(
        "labels",
        "rows without a label column",
        "has no label column .*alpha is 0.5",
        lambda place: make_trainer(place, data=dataset(8).remove_columns("labels")),
    ),
    ApiCase(
        "labels",
        "an evaluation label out of range",
        lambda place: evaluate(place, [0, 1, 5]),
        "Row 2 of the evaluation set .* has the label 5",
    ),
    ApiCase(
        "labels",
        "evaluation rows without any label",
        lambda place: evaluate(place, [-100, -100]),
        "No evaluation row has a label",
    ),
    training_case(
        "labels",
        "an evaluation set that would fail after the first epoch",
        "Row 0 of the evaluation set dev .* has the label 9",
        lambda place: make_trainer(
            place,
            arguments={"eval_dataset": {"dev": [{**row, "labels": 9} for row in rows(2)]}},
            eval_strategy="epoch",
        ),
    ),
    ApiCase(
        "labels",
        "labels that differ by a sign",
        lambda place: label_permutation(["-1", "0"], ["1", "0"]),
        "do not match those of the student",
    ),
    ApiCase(
        "labels",
        "a student of several labels",
        lambda place: make_trainer(place, student=tiny_model(problem_type="multi_label_classification")),
        "not multi-label models",
    ),
    ApiCase(
        "labels",
        "a teacher of several labels",
        lambda place: make_trainer(place, teacher=tiny_model(problem_type="multi_label_classification")),
        "not multi-label models: the teacher is one",
    ),
    training_case(
        "labels",
        "a head with other classes than its config",
        "gives 3 logits for each row, and its config says num_labels=2",
        lambda place: make_trainer(
            place,
            student=relabeled(tiny_model(), 2),
            teacher=relabeled(tiny_model(seed=2), 2),
            data=[{**row, "labels": 0} for row in rows(8)],
        ),
    ),
    training_case(
        "labels",
        "predictions of tokens",
        "logits have the shape .* not \\(rows, classes\\): this loss is that of whole texts",
        lambda place: make_trainer(place, student=token_classifier(), teacher=token_classifier(), alpha=1.0),
    ),
]


def relabeled(model: Any, classes: int) -> Any:
    model.config.id2label = {i: f"LABEL_{i}" for i in range(classes)}
    return model


NUMBERS = [
    ApiCase(
        "numbers",
        "a student with a weight that is no number",
        lambda place: make_trainer(place, student=with_weight(NAN)),
        "The model has weights that are NaN or infinite: bert.encoder.layer.1.output.dense.weight",
    ),
    ApiCase(
        "numbers",
        "a teacher with a weight that is no number",
        lambda place: make_trainer(place, teacher=with_weight(NAN)),
        "The teacher has weights that are NaN or infinite",
    ),
    ApiCase(
        "numbers",
        "a teacher with an infinite weight",
        lambda place: make_trainer(place, teacher=with_weight(math.inf)),
        "The teacher has weights that are NaN or infinite",
    ),
    training_case(
        "numbers",
        "a loss that is no number",
        r"The loss is not finite in step 2 \(kd_loss is nan\)",
        lambda place: make_bad(place, BadLoss),
    ),
    training_case(
        "numbers",
        "a loss that is no number before the first log",
        r"The loss is not finite in step 2 \(kd_loss is nan\)",
        lambda place: make_bad(place, BadLoss, logging_steps=50, save_strategy="epoch"),
    ),
    training_case(
        "numbers",
        "a gradient that is no number",
        "The gradients are not finite in step 1, although the loss was",
        lambda place: make_bad(place, BadGradient),
    ),
    training_case(
        "numbers",
        "a gradient that is no number before the first log",
        "The gradients are not finite in step 1",
        lambda place: make_bad(place, BadGradient, max_steps=1, logging_steps=50, max_grad_norm=0.0),
    ),
    ApiCase(
        "numbers",
        "a broken model to save",
        lambda place: broken(make_trainer(place)).save_model(str(place.dir / "saved")),
        "The model has weights that are NaN or infinite",
    ),
    ApiCase(
        "numbers",
        "a broken model to evaluate",
        lambda place: broken(make_trainer(place, arguments={"eval_dataset": dataset(4)})).evaluate(),
        "The model has weights that are NaN or infinite",
    ),
    ApiCase(
        "numbers",
        "predictions that overflow",
        lambda place: evaluate(place, [0, 1], student=overflowing(tiny_model())),
        "eval_loss is (nan|inf): the student's logits overflow",
    ),
    training_case(
        "training",
        "a learning rate of zero",
        "changed no weight in its 2 steps",
        lambda place: make_trainer(place, learning_rate=0.0),
        ends="named",
    ),
    training_case(
        "training",
        "a warm-up that never ends",
        "changed no weight in its 1 steps.*warmup_steps=10",
        lambda place: make_trainer(place, max_steps=1, warmup_steps=10),
        ends="named",
    ),
    training_case(
        "training",
        "no epochs",
        "num_train_epochs is 0, so that nothing would be trained",
        lambda place: make_trainer(place, max_steps=-1, num_train_epochs=0),
    ),
    training_case("training", "no rows", "The training set has no rows", lambda place: make_trainer(place, data=[])),
    training_case(
        "training",
        "a frozen student",
        "All weights of the student are frozen",
        lambda place: make_trainer(place, student=frozen(tiny_model())),
    ),
    training_case(
        "training",
        "fewer rows than a batch that is dropped",
        "has 3 rows, fewer than the 4 of one step",
        lambda place: make_trainer(
            place, data=dataset(3), max_steps=-1, dataloader_drop_last=True, train_sampling_strategy="random"
        ),
    ),
]


def broken(trainer: Any) -> Any:
    with_weight(NAN, trainer.model)
    return trainer


def overflowing(model: Any) -> Any:
    with torch.no_grad():
        model.classifier.weight.fill_(3e38)
        model.classifier.bias.fill_(3e38)
    return model


SETTINGS_THAT_CHANGE = [
    ApiCase(
        "options and settings",
        "Patient-KD's settings for vanilla KD",
        lambda place: DistillationTrainer(
            model=tiny_model(), teacher_model=tiny_model(seed=1), args=make_config(place, PatientKDConfig)
        ).train(),
        "would ignore beta, strategy, normalize_patience",
    ),
    ApiCase(
        "options and settings",
        "vanilla settings for Patient-KD",
        lambda place: PatientKDTrainer(model=tiny_model(), args=make_config(place)),
        "PatientKDTrainer needs args of type PatientKDConfig",
    ),
    training_case(
        "options and settings",
        "a weight out of range after the trainer was made",
        "alpha weights the soft term .* not 3",
        lambda place: changed(make_trainer(place), alpha=3.0),
    ),
    training_case(
        "options and settings",
        "beta raised for a student of another size",
        "The student's hidden size is 8 and the teacher's 16",
        lambda place: changed(make_trainer(place, PatientKDConfig, student=tiny_model(hidden=8), beta=0.0), beta=1.0),
    ),
    training_case(
        "options and settings",
        "another layer map that does not fit",
        "The layer map 1:9 is out of range",
        lambda place: changed(make_trainer(place, PatientKDConfig), strategy="1:9"),
    ),
    training_case(
        "options and settings",
        "a batch size that the trainer has read",
        "per_device_train_batch_size was 4 and is 2",
        lambda place: changed(make_trainer(place), per_device_train_batch_size=2),
    ),
    training_case(
        "options and settings",
        "a precision that the trainer has read",
        "bf16 was False and is True",
        lambda place: changed(make_trainer(place), bf16=True),
    ),
    training_case(
        "options and settings",
        "a teacher needed later",
        "needs a teacher_model",
        lambda place: changed(
            DistillationTrainer(
                model=tiny_model(),
                args=make_config(place, alpha=0.0),
                train_dataset=dataset(8),
                data_collator=Collator(),
            ),
            alpha=0.5,
        ),
    ),
    ApiCase(
        "options and settings",
        "a trial that needs a projection",
        lambda place: search_trial(place, beta=1.0),
        "model_init makes a new student in train",
    ),
    ApiCase(
        "options and settings",
        "a trial with a layer map that does not fit",
        lambda place: search_trial(place, beta=1.0, strategy="1:9"),
        "The layer map 1:9 is out of range",
    ),
    ApiCase(
        "options and settings",
        "a temperature without a soft term",
        lambda place: make_trainer(place, alpha=0.0, temperature=9.0).train(),
        "temperature=9.0 has no effect, because alpha is 0",
        ends="named",
    ),
    ApiCase(
        "options and settings",
        "a layer map without a patient loss",
        lambda place: make_trainer(place, PatientKDConfig, beta=0.0, strategy="last").train(),
        "strategy='last' has no effect, because beta is 0",
        ends="named",
    ),
    ApiCase(
        "options and settings",
        "a reduction that the paper's formula does not have",
        lambda place: make_trainer(place, PatientKDConfig, reductions="paper", kd_reduction="batchmean").train(),
        "kd_reduction='batchmean' has no effect",
        ends="named",
    ),
    ApiCase(
        "options and settings",
        "a teacher that no part of the loss uses",
        lambda place: make_trainer(place, alpha=0.0).train(),
        "The teacher is not used",
        ends="named",
    ),
    ApiCase(
        "options and settings",
        "a reduction for DistilBERT",
        lambda place: distilbert(place, {"kd_reduction": "mean"}).train(),
        "kd_reduction='mean' has no effect",
        ends="named",
    ),
    ApiCase(
        "options and settings",
        "a tracker that is not installed",
        lambda place: make_trainer(place, report_to=["wandb"]),
        "report_to=.*wandb.* cannot be followed",
    ),
    ApiCase(
        "options and settings",
        "a loss function that would not be called",
        lambda place: make_trainer(place, arguments={"compute_loss_func": print}),
        "compute_loss_func would not be called",
    ),
    training_case(
        "options and settings",
        "an optimizer that leaves the projection out",
        "does not train projection.*add_param_group",
        lambda place: with_optimizer(place),
    ),
    training_case(
        "options and settings",
        "an optimizer of another model",
        "trains none of the student's weights",
        lambda place: make_trainer(
            place, arguments={"optimizers": (torch.optim.SGD(tiny_model().parameters(), lr=0.1), None)}
        ),
    ),
    training_case(
        "options and settings",
        "checkpointing that hides attention scores from the gradient",
        "The attention scores have no gradient.*use_reentrant",
        lambda place: make_trainer(
            place,
            TinyBertKDConfig,
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": True},
        ),
    ),
    training_case(
        "options and settings",
        "checkpointing that hides the attention scores of every second layer from the gradient",
        "The attention scores have no gradient.*use_reentrant",
        lambda place: make_trainer(
            place,
            TinyBertKDConfig,
            activation_checkpointing=True,
            activation_checkpointing_kwargs={"use_reentrant": True, "every_n_layers": 2},
        ),
    ),
]


def with_optimizer(place: Place) -> Any:
    student = tiny_model(hidden=8)
    optimizers = (torch.optim.SGD(student.parameters(), lr=0.1), None)
    return make_trainer(place, PatientKDConfig, student, project_hidden=True, arguments={"optimizers": optimizers})


MODELS = [
    ApiCase(
        "models and checkpoints",
        "a wrapper that names no input",
        lambda place: make_trainer(place, student=Wrapped(tiny_model())).train(),
        "declared as .*args.* and names no input",
    ),
    ApiCase(
        "models and checkpoints",
        "a wrapped teacher that names no input",
        lambda place: make_trainer(place, teacher=Wrapped(tiny_model())).train(),
        "declared as .*args.* and names no input",
    ),
    ApiCase(
        "models and checkpoints",
        "a compiled student",
        lambda place: make_trainer(place, student=torch.compile(tiny_model())),
        "a compiled model.*torch_compile=True",
    ),
    ApiCase(
        "models and checkpoints",
        "a student in DataParallel",
        lambda place: make_trainer(place, student=nn.DataParallel(tiny_model())),
        "wrapped in DataParallel: give the model itself",
    ),
    ApiCase(
        "models and checkpoints",
        "a student without a config",
        lambda place: make_trainer(place, student=Headless()),
        "is a Headless without a config",
    ),
    ApiCase(
        "models and checkpoints",
        "a student without a head",
        lambda place: make_trainer(place, student=BertModel(tiny_model().config)).train(),
        "The student gives no logits: it has no head",
    ),
    ApiCase(
        "models and checkpoints",
        "embeddings shared with the teacher",
        lambda place: shared(place),
        "shares weights with the teacher \\(bert.embeddings.word_embeddings.weight",
    ),
    ApiCase(
        "models and checkpoints",
        "the teacher as its own student",
        lambda place: itself(place),
        "shares weights with the teacher",
    ),
    ApiCase(
        "models and checkpoints",
        "vocabularies of different size",
        lambda place: make_trainer(place, teacher=tiny_model(vocab_size=60)),
        "vocabulary has 50 entries and the teacher's 60",
    ),
    ApiCase(
        "models and checkpoints",
        "no teacher",
        lambda place: DistillationTrainer(model=tiny_model(), args=make_config(place)),
        "DistillationTrainer needs a teacher_model",
    ),
    ApiCase(
        "models and checkpoints",
        "a classifier for masked words",
        lambda place: distilbert(place, model=tiny_model()),
        "has no head for masked words",
    ),
    ApiCase(
        "models and checkpoints",
        "masked words without a tokenizer",
        lambda place: distilbert(place, processing_class=None),
        "Give the tokenizer as processing_class",
    ),
    ApiCase(
        "models and checkpoints",
        "a supernet as the student of another method",
        lambda place: make_trainer(place, student=bertkd.dynabert.make_adaptive(tiny_model())),
        "was made adaptive",
    ),
    ApiCase(
        "models and checkpoints",
        "a teacher of another depth for DynaBERT",
        lambda place: make_trainer(place, DynaBertKDConfig, teacher=tiny_model(layers=3)),
        "num_hidden_layers is 2 and the teacher's 3",
    ),
    ApiCase(
        "models and checkpoints",
        "heads that cannot be compared",
        lambda place: make_trainer(place, TinyBertKDConfig, teacher=tiny_model(num_attention_heads=4)),
        "has 2 attention heads and layer 1 of the teacher 4",
    ),
]


def shared(place: Place) -> None:
    teacher = tiny_model(seed=2)
    make_trainer(place, student=sharing_embeddings(teacher), teacher=teacher)


def itself(place: Place) -> None:
    model = tiny_model()
    make_trainer(place, student=model, teacher=model)


RESUMED = [
    ApiCase(
        "folders and interrupted work",
        "resumed with another alpha",
        lambda place: resume(place, alpha=0.9),
        r"written with other settings \(alpha was 0.5 and is 0.9\)",
    ),
    ApiCase(
        "folders and interrupted work",
        "resumed without the optimizer",
        lambda place: resume(place, lambda folder: (folder / "optimizer.pt").unlink()),
        "has no optimizer.pt, so that the training cannot go on as it was",
    ),
    ApiCase(
        "folders and interrupted work",
        "resumed without the schedule",
        lambda place: resume(place, lambda folder: (folder / "scheduler.pt").unlink()),
        "has no scheduler.pt",
    ),
    ApiCase(
        "folders and interrupted work",
        "resumed with half an optimizer",
        lambda place: resume(place, lambda folder: cut(folder / "optimizer.pt")),
        "has a damaged optimizer.pt",
    ),
    ApiCase(
        "folders and interrupted work",
        "resumed with half the weights",
        lambda place: resume(place, lambda folder: cut(folder / "model.safetensors")),
        "has a damaged model.safetensors",
    ),
    ApiCase(
        "folders and interrupted work",
        "resumed without the state",
        lambda place: resume(place, lambda folder: cut(folder / "trainer_state.json")),
        "has no readable trainer_state.json",
    ),
    ApiCase(
        "folders and interrupted work",
        "resumed from a folder that is not there",
        lambda place: resume(place, lambda folder: shutil.rmtree(folder)),
        "has no readable trainer_state.json",
    ),
    ApiCase(
        "folders and interrupted work",
        "the newest checkpoint without its optimizer",
        lambda place: resume(place, lambda folder: (folder / "optimizer.pt").unlink(), newest=True),
        "has no optimizer.pt: it is passed over",
        ends="named",
    ),
    ApiCase(
        "folders and interrupted work",
        "the newest checkpoint torn",
        lambda place: resume(place, lambda folder: cut(folder / "model.safetensors"), newest=True),
        "has a damaged model.safetensors: it is passed over",
        ends="named",
    ),
]

CASES = [*CONFIGS, *LABELS, *NUMBERS, *SETTINGS_THAT_CHANGE, *MODELS, *RESUMED]
