"""DistilBERT's pretraining as a trainer."""

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
from bertkd.distilbert.masking import IGNORED, Masking, count_tokens, masking_weights
from bertkd.distillation.checks import check_tokenizer
from bertkd.distillation.extra_modules import linear_projection
from bertkd.distillation.steps import inputs_of
from bertkd.distillation.trainer import DistillationTrainer
from bertkd.models.language_head import language_head

__all__ = ["DistilBertKDTrainer"]


@dataclass
class LastHiddenState(ModelOutput):
    """Of the teacher: (B, T, H)."""

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
        token_counts: (V,), how often each token stands in the corpus; default: counted in `train_dataset`, of a
            stream in its first 10,000 rows.
        processing_class: the tokenizer; it is needed for its mask and special tokens.

    Raises:
        ValueError: as `DistillationTrainer`; also a model without a head for masked words, different hidden sizes
            without `project_hidden`, no tokenizer with a mask token or one with more tokens than the model, or rows
            whose tokens cannot be counted.
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
        super().__init__(model=model, teacher_model=teacher_model, args=args, **kwargs)
        language_head(self.model)
        if self.args.compares_logits and self.teacher_model is not None:
            language_head(self.teacher_model)
        self._masking = Masking(
            self._masking_weights(token_counts),
            self._tokenizer.mask_token_id,
            self.args.mlm_probability,
            self.args.mlm_unit,
            self.args.data_seed if self.args.data_seed is not None else self.args.seed,
        )
        self._hidden: Tensor | None = None
        # Of the optimizer step: how many of a token's share are masked.
        self._masked_share: Tensor | float = self.args.mlm_probability
        if self.args.alpha_cos > 0:
            self._add_projection()

    @property
    def _tokenizer(self) -> Any:
        if getattr(self.processing_class, "mask_token_id", None) is None:
            raise ValueError("Give the tokenizer as processing_class: its mask and special tokens are needed.")
        return self.processing_class

    def _masking_weights(self, counts: Tensor | None) -> Tensor:
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
        ours, theirs = self.model.config.hidden_size, self.teacher_model.config.hidden_size
        if ours == theirs:
            return
        if not self.args.project_hidden:
            raise ValueError(
                f"The student's hidden size is {ours} and the teacher's {theirs}: the cosine compares their states "
                "one to one. Set project_hidden=True to learn a linear map between them, or leave the cosine out with "
                "alpha_cos=0."
            )
        self.extra_modules["projection"] = linear_projection(ours, theirs, self.model.config.initializer_range)

    @property
    def needs_teacher(self) -> bool:
        return self.args.compares_logits or self.args.alpha_cos > 0

    @property
    def needs_labels(self) -> bool:
        return False

    @property
    def compares_predictions(self) -> bool:
        return False  # of words: the vocabularies are compared, not a task's labels

    # ---- masks ----

    def _masked(self, inputs: dict[str, Any], step: int) -> dict[str, Any]:
        masked, labels = self._masking(inputs["input_ids"], inputs["attention_mask"], step)
        return {**inputs, "input_ids": masked, "labels": labels}

    def _size_of_step(self, micro_batches: list[Any], device: torch.device) -> Tensor | None:
        """Masks the micro-batches of one optimizer step; its tokens, over all of them and all processes."""
        for batch in micro_batches:
            batch.update(self._masked(batch, self.state.global_step))
        counts = torch.zeros(2, device=device)
        for batch in micro_batches:
            tokens, masked = batch["attention_mask"].sum(), (batch["labels"] != IGNORED).sum()
            counts += torch.stack([tokens, masked]).to(counts)
        if self.args.world_size > 1:
            counts = self.accelerator.reduce(counts, reduction="sum")
        self._masked_share = counts[1] / counts[0]
        return counts[0]

    def _share_of_step(self, inputs: dict[str, Tensor], num_tokens: Tensor | int | None) -> Tensor | float:
        if num_tokens is None:
            return 1.0
        return inputs["attention_mask"].sum() * self.args.world_size / num_tokens

    # ---- the loss ----

    def teacher_forward(self, inputs: dict[str, Tensor]) -> LastHiddenState:
        """The teacher's last hidden states (B, T, H); its predictions are computed where the loss needs them."""
        assert self.teacher_model is not None
        encoder = self.teacher_model.base_model
        outputs = encoder(**inputs_of(encoder, inputs), **self.teacher_forward_kwargs)
        return LastHiddenState(last_hidden_state=outputs.last_hidden_state)

    def compute_loss(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Any:
        """As the base; the student's own forward pass ends before its head, which the loss runs in pieces."""
        student = self.accelerator.unwrap_model(model, keep_torch_compile=False)

        def keep_states(_module: nn.Module, _args: Any, outputs: Any) -> Any:
            self._hidden = outputs["last_hidden_state"]
            outputs["last_hidden_state"] = self._hidden[:, :0]  # no token is left for the head
            return outputs

        hook = student.base_model.register_forward_hook(keep_states)
        try:
            return super().compute_loss(model, inputs, *args, **kwargs)
        finally:
            hook.remove()
            self._hidden = None

    def distillation_loss(
        self, student_outputs: Any, teacher_outputs: Any, inputs: dict[str, Tensor]
    ) -> dict[str, Tensor]:
        """kd_loss, mlm_loss, mse_loss and cos_loss, unless their weight is 0."""
        assert self._hidden is not None
        args, states = self.args, self._hidden
        active = inputs["attention_mask"].bool()
        theirs = teacher_outputs.last_hidden_state if teacher_outputs is not None else None
        parts = self._word_parts(states, theirs, inputs["labels"], active)
        if args.alpha_cos > 0:
            assert theirs is not None
            projected = self.extra_modules["projection"](states) if "projection" in self.extra_modules else states
            parts["cos_loss"] = args.alpha_cos * losses.cosine_loss(projected, theirs, active)
        return parts

    def _word_parts(self, states: Tensor, theirs: Tensor | None, labels: Tensor, active: Tensor) -> dict[str, Tensor]:
        """What compares predictions over the vocabulary: a mean over the tokens that a part uses."""
        args = self.args
        weights = {"kd_loss": args.alpha_ce, "mlm_loss": args.alpha_mlm, "mse_loss": args.alpha_mse}
        names = [name for name, weight in weights.items() if weight > 0]
        if not names:
            return {}
        used = active if args.compares_logits and not args.restrict_ce_to_mask else labels != IGNORED
        wanted = labels[used]
        student = self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        head, tokens = language_head(student), active.sum()
        # A known share of the step's tokens is masked: divided by it, micro-batches add up to the step's mean.
        of_masked = tokens * self._masked_share
        count = {"mlm_loss": of_masked, "kd_loss": tokens, "mse_loss": tokens}
        if args.restrict_ce_to_mask:
            count = dict.fromkeys(count, of_masked)
        given = theirs[used] if theirs is not None and args.compares_logits else None

        def parts_of(piece: Tensor, rows: slice) -> Tensor:
            logits, found = head(piece).float(), {}
            if given is not None:
                assert self.teacher_model is not None
                with torch.no_grad():
                    target = language_head(self.teacher_model)(given[rows]).float()
                size = len(logits)
                # A micro-batch may have no masked token.
                if args.alpha_ce > 0:
                    found["kd_loss"] = losses.kd_kl(logits, target, args.temperature) * size if size else logits.sum()
                if args.alpha_mse > 0:
                    found["mse_loss"] = (logits - target).square().sum()
            if args.alpha_mlm > 0:
                found["mlm_loss"] = F.cross_entropy(logits, wanted[rows], ignore_index=IGNORED, reduction="sum")
            return torch.stack([weights[name] * found[name] / count[name].clamp(min=1e-9) for name in names])

        with self.accelerator.autocast():  # the Trainer's own lives in the student's forward, which has ended
            summed = chunked(parts_of, states[used], _head_parameters(student), args.logits_chunk_size)
        return dict(zip(names, summed.unbind(), strict=True))

    # ---- evaluation ----

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """The loss is the whole one, on masks that do not change from one evaluation to the next."""
        inputs = self._masked(self._on_device(inputs), step=-1)
        self._masked_share = (inputs["labels"] != IGNORED).sum() / inputs["attention_mask"].sum()
        return self._evaluate_loss(model, inputs)


def _head_parameters(model: PreTrainedModel) -> list[nn.Parameter]:
    """The head's, and the output embeddings, which may be the encoder's word embeddings."""
    encoder = {id(parameter) for parameter in model.base_model.parameters()}
    own = [parameter for parameter in model.parameters() if id(parameter) not in encoder]
    return list({id(one): one for one in (*own, *model.get_output_embeddings().parameters())}.values())
