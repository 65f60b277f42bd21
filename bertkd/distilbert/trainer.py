"""Trains DistilBERT: on text, before any task."""

import os
from dataclasses import dataclass
from typing import Any

import datasets
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModelForMaskedLM, PreTrainedModel
from transformers.utils import ModelOutput

from bertkd import losses
from bertkd.distilbert.chunks import chunked
from bertkd.distilbert.config import DistilBertKDConfig
from bertkd.distilbert.head import head_left_out, head_parameters
from bertkd.distilbert.masking import IGNORED, Masking, count_tokens, masking_weights
from bertkd.distillation.checks import check_layers_can_be_read, check_tokenizer
from bertkd.distillation.extra_modules import linear_projection
from bertkd.distillation.steps import inputs_of, model_inside
from bertkd.distillation.trainer import DistillationTrainer
from bertkd.models.language_head import language_head

__all__ = ["DistilBertKDTrainer"]


@dataclass
class LastHiddenState(ModelOutput):
    """The teacher's last hidden states, (B, T, H)."""

    last_hidden_state: Tensor | None = None


class DistilBertKDTrainer(DistillationTrainer):
    """DistilBERT (Sanh et al., arXiv 1910.01108): soft targets, masked language modeling and cosine, on text.

    `DistilBertKDConfig` has the loss. Rows are token ids without labels (`bertkd.data.tokenize_corpus`); tokens are
    masked anew in each step, by the seed and the rows alone (`bertkd.distilbert.masking`), and student and teacher
    read the same ones. Predictions over the vocabulary are computed at the tokens that the loss uses, some at a time.
    `evaluate` gives the loss on the evaluation rows, which are masked alike each time.

    Args:
        model: the student, a masked language model (`bertkd.distilbert.distilbert_student`).
        teacher_model: a masked language model with the same vocabulary.
        args: a `DistilBertKDConfig`.
        token_counts: (V,), how often each token stands in the corpus; default: counted in `train_dataset`, in a
            stream in its first 10,000 rows.
        processing_class: the tokenizer; it is needed for its mask and special tokens.

    Raises:
        ValueError: what `DistillationTrainer` refuses, and a model without a head for masked words, different hidden
            sizes without `project_hidden`, no tokenizer with a mask token or one with more tokens than the model, or
            rows whose tokens cannot be counted.
    """

    args: DistilBertKDConfig
    config_class = DistilBertKDConfig
    auto_model_class = AutoModelForMaskedLM

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str | os.PathLike | None = None,
        teacher_model: PreTrainedModel | str | os.PathLike | None = None,
        args: DistilBertKDConfig | None = None,
        token_counts: Tensor | None = None,
        **kwargs: Any,
    ) -> None:
        self._token_counts = token_counts
        super().__init__(model=model, teacher_model=teacher_model, args=args, **kwargs)

    def _set_up_method(self) -> None:
        super()._set_up_method()
        check_layers_can_be_read(self.model, type(self).__name__)
        # Raises for a model that has no head for masked words.
        language_head(model_inside(self.model))
        if self.args.compares_logits and self.teacher_model is not None:
            language_head(self.teacher_model)

        self._masking = Masking(
            self._masking_weights(self._token_counts),
            self._tokenizer.mask_token_id,
            self.args.mlm_probability,
            self.args.mlm_unit,
            self.args.data_seed if self.args.data_seed is not None else self.args.seed,
        )
        # The share of the current optimizer step's tokens that is masked, over all micro-batches and processes.
        self._masked_share: Tensor | float = self.args.mlm_probability
        if self.args.alpha_cos > 0:
            self._add_projection()
        else:
            self._remove_extra_module("projection")

    @property
    def _tokenizer(self) -> Any:
        if getattr(self.processing_class, "mask_token_id", None) is None:
            raise ValueError("Give the tokenizer as processing_class: its mask and special tokens are needed.")
        return self.processing_class

    def _masking_weights(self, counts: Tensor | None) -> Tensor:
        """The weights by which tokens of the vocabulary are drawn to be masked, (V,)."""
        size, smoothing = self.model.config.vocab_size, self.args.mlm_smoothing
        check_tokenizer(self._tokenizer, size)

        if counts is None and smoothing > 0 and self.train_dataset is not None:
            if not isinstance(self.train_dataset, datasets.Dataset | datasets.IterableDataset):
                raise ValueError(
                    f"The tokens of a {type(self.train_dataset).__name__} cannot be counted beforehand: give a "
                    "datasets.Dataset, token_counts, or mlm_smoothing=0 to mask all tokens alike."
                )
            counts = count_tokens(self.train_dataset, size)

        return masking_weights(self._tokenizer, torch.ones(size) if counts is None else counts, smoothing)

    def _add_projection(self) -> None:
        assert self.teacher_model is not None
        student_size, teacher_size = self.model.config.hidden_size, self.teacher_model.config.hidden_size
        if student_size == teacher_size:
            return

        if not self.args.project_hidden:
            raise ValueError(
                f"The student's hidden size is {student_size} and the teacher's {teacher_size}: the cosine compares "
                "their states one to one. Set project_hidden=True to learn a linear map between them, or leave the "
                "cosine out with alpha_cos=0."
            )
        if "projection" not in self.extra_modules:
            self.extra_modules["projection"] = linear_projection(
                student_size, teacher_size, self.model.config.initializer_range
            )

    @property
    def needs_teacher(self) -> bool:
        return self.args.compares_logits or self.args.alpha_cos > 0

    @property
    def needs_labels(self) -> bool:
        return False

    @property
    def compares_predictions(self) -> bool:
        # Predictions of words are compared: the vocabularies must be the same, a task's labels need not.
        return False

    # ---- masks ----

    def _masked(self, inputs: dict[str, Any], step: int) -> dict[str, Any]:
        """A batch with masked `input_ids`, and the words to predict as `labels`.

        Raises:
            ValueError: the collator has masked words already.
        """
        ids, known = inputs["input_ids"], inputs.get("labels")
        is_of_tokens = known is not None and known.shape == ids.shape
        # Other labels of tokens, such as tags, are nobody's business here.
        if is_of_tokens and ((known != IGNORED) & (known != ids) & (ids == self._tokenizer.mask_token_id)).any():
            raise ValueError(
                "The data collator has masked words already, and DistilBertKDTrainer masks them by itself: take "
                "DataCollatorWithPadding, and set the share of masked words with mlm_probability."
            )
        masked, labels = self._masking(inputs["input_ids"], inputs["attention_mask"], step)
        return {**inputs, "input_ids": masked, "labels": labels}

    def _size_of_step(self, micro_batches: list[Any], device: torch.device) -> Tensor | None:
        """Mask the micro-batches of one optimizer step; give its tokens, over all of them and all processes.

        Here all micro-batches of the step are at hand: only so is it known, before the first one's loss, how many
        tokens of the whole step are masked.
        """
        counts = torch.zeros(2, device=device)
        for batch in micro_batches:
            batch.update(self._masked(batch, self.state.global_step))
            tokens, masked = batch["attention_mask"].sum(), (batch["labels"] != IGNORED).sum()
            counts += torch.stack([tokens, masked]).to(counts)

        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, reduction="sum")
        self._masked_share = counts[1] / counts[0]
        return counts[0]

    def _share_of_step(self, inputs: dict[str, Tensor], size_of_step: Tensor | int | None) -> Tensor | float:
        if size_of_step is None:
            return 1.0
        return inputs["attention_mask"].sum() * self.args.world_size / size_of_step

    # ---- the loss ----

    def teacher_forward(self, inputs: dict[str, Tensor]) -> LastHiddenState:
        """The teacher's last hidden states (B, T, H); its predictions are computed where the loss needs them."""
        assert self.teacher_model is not None
        encoder = self.teacher_model.base_model
        outputs = encoder(**inputs_of(encoder, inputs), **self.teacher_forward_kwargs)
        return LastHiddenState(last_hidden_state=outputs.last_hidden_state)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """The loss of the base class, from a forward pass of the student that ends before its head.

        `distillation_loss` runs the head on the states that it gets as `student_outputs.hidden_states[-1]`.
        """
        with head_left_out(model_inside(model)):
            return super().compute_loss(model, inputs, *args, **kwargs)

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """kd_loss, mlm_loss, mse_loss and cos_loss, unless their weight is 0."""
        student_states = student_outputs.hidden_states[-1]
        teacher_states = teacher_outputs.last_hidden_state if teacher_outputs is not None else None
        active = inputs["attention_mask"].bool()
        parts = self._word_losses(student_states, teacher_states, inputs["labels"], active)

        if self.args.alpha_cos > 0:
            assert teacher_states is not None
            projected = student_states
            if "projection" in self.extra_modules:
                projection = self.extra_modules["projection"]
                # As in TinyBERT's: an evaluation in half precision leaves the projection as it was.
                projected = projection(student_states.to(next(projection.parameters()).dtype))
            parts["cos_loss"] = self.args.alpha_cos * losses.cosine_loss(projected, teacher_states, active)
        return parts

    def _word_losses(
        self, student_states: Tensor, teacher_states: Tensor | None, labels: Tensor, active: Tensor
    ) -> dict[str, Tensor]:
        """The parts of the loss that compare predictions over the vocabulary, each a mean over the tokens it uses.

        Args:
            student_states: last hidden states, (B, T, H).
            teacher_states: those of the teacher; None if the loss does not use it.
            labels: (B, T), the id of a masked token, elsewhere -100.
            active: (B, T), false for padding.
        """
        args = self.args
        weights = {"kd_loss": args.alpha_ce, "mlm_loss": args.alpha_mlm, "mse_loss": args.alpha_mse}
        names = [name for name, weight in weights.items() if weight > 0]
        if not names:
            return {}

        # How many tokens each mean is over. The masked ones are counted by their share of the whole step: divided by
        # that, the micro-batches add up to the step's mean although each has a few masked tokens more or less.
        tokens = active.sum()
        masked_tokens = tokens * self._masked_share
        compared_tokens = masked_tokens if args.restrict_ce_to_mask else tokens
        counts = {"kd_loss": compared_tokens, "mlm_loss": masked_tokens, "mse_loss": compared_tokens}

        # The tokens at which predictions are computed. Without a comparison of the two models the masked ones will do.
        used = active if args.compares_logits and not args.restrict_ce_to_mask else labels != IGNORED
        used_labels = labels[used]
        used_teacher_states = teacher_states[used] if teacher_states is not None and args.compares_logits else None
        student = model_inside(self.model)
        student_head = language_head(student)

        def parts_of(states: Tensor, rows: slice) -> Tensor:
            logits = student_head(states).float()
            sums: dict[str, Tensor] = {}

            if used_teacher_states is not None:
                assert self.teacher_model is not None
                with torch.no_grad():
                    teacher_logits = language_head(self.teacher_model)(used_teacher_states[rows]).float()
                if args.alpha_ce > 0:
                    # A micro-batch may have no masked token, over which there is no mean.
                    size = len(logits)
                    kl = losses.kd_kl(logits, teacher_logits, args.temperature) * size if size else logits.sum()
                    sums["kd_loss"] = kl
                if args.alpha_mse > 0:
                    sums["mse_loss"] = (logits - teacher_logits).square().sum()

            if args.alpha_mlm > 0:
                sums["mlm_loss"] = F.cross_entropy(logits, used_labels[rows], ignore_index=IGNORED, reduction="sum")

            return torch.stack([weights[name] * sums[name] / counts[name].clamp(min=1e-9) for name in names])

        # The Trainer's own autocast lives in the student's forward, which has ended.
        with self.accelerator.autocast():
            parts = chunked(parts_of, student_states[used], head_parameters(student), args.logits_chunk_size)
        return dict(zip(names, parts.unbind(), strict=True))

    # ---- evaluation ----

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The whole loss, on masks that do not change from one evaluation to the next."""
        return self._evaluate_loss(model, self._on_device(inputs))

    def _to_evaluate(self, inputs: dict[str, Any]) -> dict[str, Any]:
        # No training step has the number -1.
        masked = self._masked(inputs, step=-1)
        self._masked_share = (masked["labels"] != IGNORED).sum() / masked["attention_mask"].sum()
        return masked
