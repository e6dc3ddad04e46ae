"""Whether a model keeps the documents of a packed row apart, tried on two short ones.

What it says of the second must have no gradient with respect to the tokens of the first: exactly none, in any
precision, where attention gives them the weight 0. And it must say what it says of the second alone, up to rounding.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DataCollatorWithFlattening, PreTrainedModel

from hf_transfer.modeling.anatomy import unwrap_peft

LENGTHS = (5, 4)
ROUNDING = 8
"""Of the largest logit, in roots of its precision: what may come of other orders of sums."""


def check_packing(model: PreTrainedModel | PeftModel) -> None:
    """Refuse a model that does not keep packed documents apart.

    Args:
        model: reads `input_ids` and `position_ids`.

    Raises:
        ValueError: it does not; most models do that read `position_ids`, under some attentions.
    """
    base = unwrap_peft(model)
    name, was_training = type(base).__name__, model.training
    generator = torch.Generator().manual_seed(0)
    vocabulary = base.config.get_text_config().vocab_size
    first, second = (torch.randint(vocabulary, (length,), generator=generator).tolist() for length in LENGTHS)
    model.eval()
    try:
        with torch.no_grad():
            alone = _logits(model, [second])
        with embedded(base) as states:
            packed = _logits(model, [first, second])[len(first) :]
        told = (packed * torch.randn(packed.shape, generator=generator).to(packed)).sum()
        influence = torch.autograd.grad(told, states[0])[0][0, : len(first)].abs().max()
    except TypeError as error:
        raise ValueError(f"a {name} cannot read packed documents: {error}") from error
    finally:
        model.train(was_training)
    rounding = ROUNDING * math.sqrt(torch.finfo(alone.dtype).eps) * alone.abs().max()
    if influence > 0 or (packed - alone).abs().max() > rounding:
        raise ValueError(
            f"a {name} with `attn_implementation={base.config._attn_implementation}` does not keep packed documents "
            "apart: what it says of one depends on the one before. Leave the packing out, or use a model whose "
            "attention reads `position_ids`, such as Flowformer or Llama with sdpa, without `use_cache`."
        )


@contextmanager
def embedded(model: PreTrainedModel) -> Iterator[list[Tensor]]:
    """Inside, every forward pass adds the embeddings of its tokens, [B, T, D], of which gradients can be asked."""
    states: list[Tensor] = []

    def keep(module: torch.nn.Module, inputs: tuple, output: Tensor) -> Tensor:
        states.append(output.detach().requires_grad_())
        return states[-1]

    handle = model.get_input_embeddings().register_forward_hook(keep)
    try:
        yield states
    finally:
        handle.remove()


def _logits(model: PreTrainedModel | PeftModel, documents: list[list[int]]) -> Tensor:
    """[T, V], of documents packed into one row."""
    batch = DataCollatorWithFlattening()([{"input_ids": tokens} for tokens in documents])
    device = next(model.parameters()).device
    return model(**{key: batch[key].to(device) for key in ("input_ids", "position_ids")}).logits[0]
