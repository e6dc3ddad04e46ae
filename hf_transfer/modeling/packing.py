"""Whether a model keeps the documents of a packed row apart, tried on two short ones."""

from __future__ import annotations

import torch
from peft import PeftModel
from torch import Tensor
from transformers import DataCollatorWithFlattening, PreTrainedModel

from hf_transfer.modeling.anatomy import unwrap_peft

LENGTHS = (5, 4)
ROUNDING = 64
"""Of the largest logit, in units of its precision: what may come of another order of sums."""


@torch.no_grad()
def check_packing(model: PreTrainedModel | PeftModel) -> None:
    """Refuse a model whose logits of a packed document depend on the one before it, or are not those of it alone.

    Args:
        model: reads `input_ids` and `position_ids`.

    Raises:
        ValueError: it does not keep documents apart; most models do that read `position_ids`, under some attentions.
    """
    name, was_training = type(unwrap_peft(model)).__name__, model.training
    vocabulary = unwrap_peft(model).config.get_text_config().vocab_size
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.randint(vocabulary, (length,), generator=generator).tolist() for length in LENGTHS)
    other = [(token + 1) % vocabulary for token in first]
    model.eval()
    try:
        alone = _logits(model, [second])
        packed, beside_another = (_logits(model, [one, second])[len(one) :] for one in (first, other))
    except TypeError as error:
        raise ValueError(f"a {name} cannot read packed documents: {error}") from error
    finally:
        model.train(was_training)
    tolerance = ROUNDING * torch.finfo(alone.dtype).eps * alone.abs().max()
    # A difference to the other document's is a leak, however small; kernels may differ between lengths of rows.
    if (packed - beside_another).abs().max() > tolerance or (packed - alone).abs().max() > ROUNDING * tolerance:
        attention = unwrap_peft(model).config._attn_implementation
        raise ValueError(
            f"a {name} with `attn_implementation={attention}` does not keep packed documents apart: what it says of "
            "one depends on the one before. Leave the packing out, or use a model whose attention reads "
            "`position_ids`, such as Flowformer or Llama with sdpa, without `use_cache`."
        )


def _logits(model: PreTrainedModel | PeftModel, documents: list[list[int]]) -> Tensor:
    """[T, V], of documents packed into one row."""
    batch = DataCollatorWithFlattening()([{"input_ids": tokens} for tokens in documents])
    device = next(model.parameters()).device
    return model(**{key: batch[key].to(device) for key in ("input_ids", "position_ids")}).logits[0]
