"""Features of a frozen Hugging Face model: hidden states of the asked layers, pooled to one vector a row.

    mean   average over the real tokens (or over the places of a convolutional map)
    cls    first real token
    last   last real token
    max    maximum over the real tokens

Layer 0 is the embeddings, layer k the output of block k, and the last layer the model's final (normalised) state.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from hf_transfer.modeling.masks import state_mask

POOLINGS = ("mean", "cls", "last", "max")
LAYER_WORDS = ("last", "all", "best")


def pool(hidden: Tensor, mask: Tensor | None, pooling: str) -> Tensor:
    """Pool hidden states [B, T, D], a map [B, D, H, W] or vectors [B, D] to [B, D]; mask [B, T], 1 = real."""
    if hidden.ndim == 2:
        return hidden
    if hidden.ndim == 4:
        hidden, mask = hidden.flatten(2).transpose(1, 2), None
    if hidden.ndim != 3:
        raise ValueError(f"Hidden states should have 2 to 4 axes, got {tuple(hidden.shape)}.")
    keep = hidden.new_ones(hidden.shape[:2]) if mask is None else mask.to(hidden.dtype)
    keep = keep.unsqueeze(-1)
    if pooling == "mean":
        return (hidden * keep).sum(dim=1) / keep.sum(dim=1).clamp(min=1)
    if pooling == "max":
        return hidden.masked_fill(keep == 0, torch.finfo(hidden.dtype).min).amax(dim=1)
    indices = torch.arange(hidden.shape[1], device=hidden.device)
    # `argmax` gives the first of equal places.
    chosen = keep[..., 0].argmax(dim=1) if pooling == "cls" else (keep[..., 0] * indices).argmax(dim=1)
    return hidden[torch.arange(len(hidden), device=hidden.device), chosen]


class FeatureExtractor:
    """Runs a frozen model on a batch and returns the pooled features of the asked layers, in float32.

    Args:
        model: any Hugging Face model; of an encoder-decoder the encoder is used.
        layers: "last", "all", "best" (all of them are computed) or indices, negative ones from the end. Of a model
            that returns no hidden states "all" is its last layer.
        pooling: one of `POOLINGS`, or "none" to keep every token, for token classification.

    Raises:
        ValueError: for an unknown pooling or layer word.
    """

    def __init__(self, model: nn.Module, layers: str | Sequence[int] = "last", pooling: str = "mean"):
        if pooling not in (*POOLINGS, "none"):
            raise ValueError(f"`pooling` should be one of {list(POOLINGS)}, got {pooling!r}.")
        check_layers(layers)
        self.model = model.eval()
        self.layers = layers
        self.pooling = pooling
        accepted = inspect.signature(model.forward).parameters
        accepts_all = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
        self.options = {"return_dict": True} if accepts_all or "return_dict" in accepted else {}
        if "use_cache" in accepted:
            self.options["use_cache"] = False
        if layers != "last":
            self.options["output_hidden_states"] = True

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Features [B, D] by layer index ([B, T, D] with pooling "none")."""
        return self.features(inputs)

    def features(self, inputs: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """As a call, of a model that trains on later: what it keeps of a pass has to serve a backward pass too."""
        outputs = self.model(**inputs, **self.options)
        mask = inputs.get("attention_mask")
        chosen = self._choose(outputs)
        if self.pooling == "none":
            return {layer: hidden.float() for layer, hidden in chosen.items()}
        return {layer: self._pool(hidden.float(), mask) for layer, hidden in chosen.items()}

    def _pool(self, hidden: Tensor, mask: Tensor | None) -> Tensor:
        if hidden.ndim == 4 and self._has_features_last(hidden):
            hidden, mask = hidden.flatten(1, 2), None
        # A first state stands first in a layer of any length.
        is_needed = hidden.ndim == 3 and (self.pooling != "cls" or mask is None or mask.shape[1:] == hidden.shape[1:2])
        return pool(hidden, state_mask(self.model, mask, hidden.shape[1]) if is_needed else None, self.pooling)

    def _has_features_last(self, hidden: Tensor) -> bool:
        """Whether states of four axes are [B, C, P, D] patches of a series, or a map [B, H, W, D] such as SAM's."""
        size = getattr(getattr(self.model, "config", None), "hidden_size", None)
        is_series = getattr(self.model, "main_input_name", None) == "past_values"
        return is_series or (hidden.shape[-1] == size and hidden.shape[1] != size)

    def _choose(self, outputs) -> dict[int, Tensor]:
        final = final_state(outputs, self.model)
        if self.layers == "last":
            return {self.depth: final}
        hidden = getattr(outputs, "hidden_states", None)
        if not hidden and isinstance(self.layers, str):
            return {self.depth: final}
        if not hidden:
            raise ValueError(f'{type(self.model).__name__} returns no hidden states: use `layers="last"`.')
        states = [*hidden[:-1], final]
        if isinstance(self.layers, str):
            return dict(enumerate(states))
        outside = [layer for layer in self.layers if not -len(states) <= layer < len(states)]
        if outside:
            raise ValueError(f"`layers` should lie in [-{len(states)}, {len(states) - 1}], got {outside}.")
        return {layer % len(states): states[layer] for layer in self.layers}

    @property
    def depth(self) -> int:
        """Index of the last layer."""
        config = getattr(self.model, "config", None)
        if config is not None and hasattr(config, "get_text_config"):
            config = config.get_text_config()
        return int(getattr(config, "num_hidden_layers", None) or len(getattr(config, "depths", None) or [0]))


class HeadExtractor:
    """Runs a frozen model with its classification head and returns the head's probabilities, under layer 0.

    Args:
        model: a model whose outputs have `logits` [B, Z] or, for tokens, [B, T, Z].
    """

    def __init__(self, model: nn.Module):
        self.model = model.eval()

    @torch.inference_mode()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[int, Tensor]:
        """Probabilities [B, Z] or [B, T, Z]."""
        return {0: self.model(**inputs).logits.float().softmax(dim=-1)}


def final_state(outputs, model: nn.Module) -> Tensor:
    """The last hidden state of a model's outputs, under whichever name it has."""
    for name in ("last_hidden_state", "encoder_last_hidden_state"):
        if getattr(outputs, name, None) is not None:
            return getattr(outputs, name)
    if getattr(outputs, "hidden_states", None):
        return outputs.hidden_states[-1]
    if getattr(outputs, "pooler_output", None) is not None:
        return outputs.pooler_output
    raise ValueError(f"{type(model).__name__} returns no hidden states to rank by.")


def check_layers(layers: str | Sequence[int]) -> None:
    """Raises ValueError for something that names no layers."""
    is_word = isinstance(layers, str) and layers in LAYER_WORDS
    is_list = not isinstance(layers, str) and len(layers) > 0 and all(isinstance(layer, int) for layer in layers)
    if not is_word and not is_list:
        raise ValueError(f"`layers` should be one of {list(LAYER_WORDS)} or a list of indices, got {layers!r}.")
