"""Factorizes at low rank: a large matrix becomes the product of two small ones."""

import torch
from torch import Tensor
from transformers import PreTrainedModel

from bertkd.models import layer_sizes
from bertkd.models.adaptive import refuse_supernet
from bertkd.models.families import encoder_layers, family_of
from bertkd.models.pruned import FactorizedEmbedding, FactorizedLinear
from bertkd.models.sizes import match_device_dtype_and_mode
from bertkd.students.width import new_pruned_model, state_for_pruned

__all__ = ["factorize", "low_rank_factors"]


def low_rank_factors(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """Finds the two factors whose product is the closest matrix of a given rank in the Frobenius norm.

    The factors are `U √S` and `√S Vᵀ` of the truncated singular value decomposition (Eckart and Young, 1936), so that
    both are of the same scale. They are computed in float32 or more.

    Args:
        matrix: (m, n).
        rank: r.

    Returns:
        The factors (m, r) and (r, n), in the matrix's dtype.
    """
    exact = matrix.to(torch.promote_types(matrix.dtype, torch.float32))
    left, values, right = torch.linalg.svd(exact, full_matrices=False)

    root = values[:rank].sqrt()
    return (left[:, :rank] * root).to(matrix.dtype), (root[:, None] * right[:rank]).to(matrix.dtype)


def factorize(
    model: PreTrainedModel, ffn_rank: int | None = None, embedding_rank: int | None = None
) -> PreTrainedModel:
    """Makes a new model whose feed-forward maps or word embeddings are products of two small matrices each.

    A map W of m x n becomes A B with A of m x r and B of r x n, the best approximation of that rank: r (m + n) weights
    in the place of m n. Both maps of every feed-forward part get the same `ffn_rank`; biases stay. The word embeddings
    become a table of V x r and a map of r x H without a bias, as in ALBERT (Lan et al., arXiv 1909.11942).

    The result is of the pruned class in `bertkd.models.pruned`, which saves and loads as usual. `model` stays as it
    is. The new model is on the same device, in the same dtype and mode.

    Args:
        model: a model of a family in `bertkd.models.families`, with or without a head; width-pruned and weight-sharing
            ones are welcome.
        ffn_rank: the rank of the feed-forward maps; None leaves them as they are.
        embedding_rank: the rank of the word embeddings; None leaves them as they are.

    Raises:
        ValueError: no rank, one below 1 or so large that no parameter is saved, what is factorized already, word
            embeddings that the output layer uses too (masked language models), a supernet, or a class that has no
            pruned one.
    """
    refuse_supernet(model, "factorize")
    if ffn_rank is None and embedding_rank is None:
        raise ValueError("factorize needs a rank: give ffn_rank, embedding_rank or both.")

    fields = {}
    if ffn_rank is not None:
        _check_ffn(model, ffn_rank)
        fields["ffn_rank"] = ffn_rank
    if embedding_rank is not None:
        _check_embeddings(model, embedding_rank)
        fields["embedding_rank"] = embedding_rank

    student = new_pruned_model(model, **fields)
    student.load_state_dict(_factorized(model, student))
    return match_device_dtype_and_mode(student, model)


def _factorized(model: PreTrainedModel, student: PreTrainedModel) -> dict[str, Tensor]:
    """Puts the weights of `model` under the names of `student`, which has factors where `model` has none yet."""
    state = state_for_pruned(model)

    for path, module in student.named_modules():
        if isinstance(module, FactorizedLinear) and f"{path}.weight" in state:
            up, down = low_rank_factors(state.pop(f"{path}.weight"), module.down.out_features)
            state[f"{path}.up.weight"], state[f"{path}.down.weight"] = up, down
            if f"{path}.bias" in state:
                state[f"{path}.up.bias"] = state.pop(f"{path}.bias")

        elif isinstance(module, FactorizedEmbedding) and f"{path}.projection.weight" not in state:
            table, projection = low_rank_factors(state[f"{path}.weight"], module.embedding_dim)
            state[f"{path}.weight"], state[f"{path}.projection.weight"] = table, projection.T

    return state


def _check_ffn(model: PreTrainedModel, rank: int) -> None:
    family = family_of(model)
    for index, (layer, neurons) in enumerate(zip(encoder_layers(model), layer_sizes(model).neurons, strict=True)):
        if neurons == 0:
            continue

        linear = layer.get_submodule(family.ffn_in)
        if isinstance(linear, FactorizedLinear):
            raise ValueError(
                f"The feed-forward maps are factorized already, to rank {linear.down.out_features}: factorize the "
                "model that they come from."
            )
        _check_rank("ffn_rank", rank, neurons, int(linear.in_features), f"the feed-forward maps of layer {index}")  # type: ignore[arg-type]


def _check_embeddings(model: PreTrainedModel, rank: int) -> None:
    table = model.base_model.get_submodule(family_of(model).word_embeddings)
    assert isinstance(table, torch.nn.Embedding)

    if isinstance(table, FactorizedEmbedding):
        raise ValueError(
            f"The word embeddings are factorized already, to rank {table.embedding_dim}: factorize the model that "
            "they come from."
        )
    if model.get_output_embeddings() is not None:
        raise ValueError(
            f"The word embeddings of a {type(model).__name__} are also its output layer, which needs them whole: give "
            "ffn_rank alone, or factorize the embeddings once the model has the head of a task."
        )
    _check_rank("embedding_rank", rank, table.num_embeddings, table.embedding_dim, "the word embeddings")


def _check_rank(name: str, rank: int, rows: int, columns: int, matrix: str) -> None:
    """Checks that two factors of this rank have fewer weights than the matrix, which `matrix` names."""
    if rank < 1:
        raise ValueError(f"{name} must be at least 1, not {rank}.")

    if rank * (rows + columns) >= rows * columns:
        break_even = rows * columns / (rows + columns)
        raise ValueError(
            f"{name}={rank} saves no parameters in {matrix}, of {rows} x {columns}: two factors break even at rank "
            f"{break_even:.1f}; give at most {(rows * columns - 1) // (rows + columns)}."
        )
