"""RegMean: the linear layers of several models become the ones whose outputs are nearest to those of all.

    W = ( sum_k G_k )^-1 sum_k G_k W_k,   G_k = shrunk X_k^T X_k

is the least-squares solution of min_W sum_k || X_k W - X_k W_k ||^2, X_k [N, D] being what the layer of model k reads
on that model's rows, W_k [D, O] its weight transposed. Off the diagonal X^T X is multiplied by `shrink`, which keeps
layers of few rows from following their noise. All other weights, biases among them, are averaged.

Paper: Jin et al., "Dataless Knowledge Fusion by Merging Weights of Language Models", ICLR 2023,
https://huggingface.co/papers/2212.09849; .9 as there. Inputs that are 0 on all rows say nothing: a millionth of the
mean diagonal is added, by which their weights are averaged.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.modeling.surgery import modules_where
from hf_transfer.multi_model.composite import accepted_inputs
from hf_transfer.multi_model.soup import Soup, in_float32, loaded, uniform_soup, with_weights

Batches = Iterable[Mapping[str, Tensor]]
RIDGE = 1e-6


@torch.no_grad()
def merge_regmean(models: Sequence[str | PreTrainedModel], rows: Sequence[Batches], shrink: float = 0.9) -> Soup:
    """The merged model.

    Args:
        models: of one architecture, with the same labels; or their folders, which are loaded one at a time.
        rows: of each model batches of inputs that it was trained on; some hundred rows do, and labels are not read.
        shrink: factor of X^T X off its diagonal, in [0, 1].

    Raises:
        ValueError: no model, other numbers of models and rows, one that cannot be loaded, tensors of other names or
            shapes, no rows, or `shrink` out of its range.
    """
    if not 0 <= shrink <= 1:
        raise ValueError(f"`shrink` should be in [0, 1], got {shrink}.")
    if len(rows) != len(models):
        raise ValueError(f"`rows` should be batches for each of {len(models)} models, got {len(rows)}.")
    mean = uniform_soup(models)
    grams: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    for source, batches in zip(models, rows, strict=True):
        model = loaded(source, mean.model)
        for name, gram in grams_of(model, batches).items():
            gram = (
                shrink * gram
                + (1 - shrink) * gram.diag().diag()
                + RIDGE * gram.diag().mean() * torch.eye(len(gram)).to(gram)
            )
            weight = model.get_submodule(name).weight.to(gram).T
            grams[name] = grams.get(name, 0) + gram
            products[name] = products.get(name, 0) + gram @ weight
    state = in_float32(mean.model.state_dict())
    for name, gram in grams.items():
        state[f"{name}.weight"] = torch.linalg.solve(gram, products[name]).T.float()
    return Soup(with_weights(mean.model, state, 1.0), mean.kept)


def grams_of(model: PreTrainedModel, batches: Batches) -> dict[str, Tensor]:
    """X^T X [D, D] in float64 of every linear layer that runs, by its name; padding is left out.

    Raises:
        ValueError: there is no batch.
    """
    found: dict[str, Tensor] = {}
    mask: Tensor | None = None

    def remember(name: str, inputs: Tensor) -> None:
        is_padded = mask is not None and inputs.shape[:-1] == mask.shape
        seen = (inputs[mask.bool()] if is_padded else inputs.reshape(-1, inputs.shape[-1])).double()
        found[name] = found.get(name, 0) + seen.T @ seen

    layers = modules_where(model, lambda module: type(module) is nn.Linear)
    hooks = [
        layer.register_forward_pre_hook(lambda _, inputs, name=name: remember(name, inputs[0]))
        for name, layer in layers.items()
    ]
    was_training = model.training
    model.eval()
    try:
        for batch in batches:
            inputs = {key: value.to(model.device) for key, value in batch.items() if key != "labels"}
            mask = inputs.get("attention_mask")
            model(**accepted_inputs(model, inputs))
    finally:
        for hook in hooks:
            hook.remove()
        model.train(was_training)
    if not found:
        raise ValueError("RegMean measures what linear layers read, and there was no batch or no linear layer.")
    return found
