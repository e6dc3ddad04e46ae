"""Readouts of Hugging Face models, and the choice among them from the model itself.

linear   the input and output of the last linear head (or 1x1 convolution); units are the rows
token    the same of every real token
dense    the same of every pixel of the logits' grid
pooled   a backbone without a head: its pooled output, or the mean of its last state; no logits
queries  the queries of a detector
pictures the pictures of a detector: the mean of the encoder's state, and the largest score of each class
class_texts the pictures of a model with two towers whose classes are texts
heat_maps the pictures of a model of key points, with the places that its maps tell
spans    the questions of a model that answers them by a part of a context; no logits
nothing  no features and no logits
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.readout import Named, Nothing, Readout, Units, rows_of
from hf_transfer.core.supervision import FromModel, FromSpans, span_scores
from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.modeling.anatomy import HeadInput, base_layer, is_backbone, linear_heads, unwrap_peft, width_of
from hf_transfer.modeling.class_texts import TEXTS, ClassTexts
from hf_transfer.modeling.detection_readouts import Pictures, Queries
from hf_transfer.modeling.heat_map_readout import KEYPOINT_HEADS, HeatMaps
from hf_transfer.modeling.label_forms import DENSE_HEADS, DETECTION_HEADS, ignored_class
from hf_transfer.modeling.masks import state_mask
from hf_transfer.models.picture_width import outputs_of_a_picture

TOKEN_HEADS = ("ForTokenClassification",)
SPAN_HEADS = ("ForQuestionAnswering", "ForQuestionAnsweringSimple")


LOGITS = ("logits", "regression_outputs", "prediction_logits")
"""What models call the outputs of a linear head; the last two are PatchTST's."""


class HeadReadout(Readout):
    """What the readouts of a model with a linear head share: they watch that head."""

    def find(self, model: nn.Module) -> None:
        self.feature_dim, self.num_outputs = width_of(base_layer(linear_heads(model)[-1]))
        self.head = HeadInput(model)

    def __enter__(self) -> HeadReadout:
        self.head.__enter__()
        return self

    def __exit__(self, *exception: Any) -> None:
        self.head.__exit__(*exception)


class LinearHead(HeadReadout):
    """Features [B, D] are the input of the last linear head, logits [B, C] the model's. Units are the rows."""

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        logits = next(outputs[name] for name in LOGITS if outputs.get(name) is not None)
        features = self.head.take(logits, batch.get("attention_mask"))
        return Units(features.float(), logits.float(), batch.get("labels"), rows_of(batch))


class Token(HeadReadout):
    """Units are the real tokens: features [N, D] are the head's input there, logits [N, C] its output.

    Tokens without a label, such as the later pieces of a word, are units with the label `IGNORED_LABEL`.
    """

    units_are_rows = False
    ignored_part = IGNORED_LABEL

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        features, logits = self.head.take_all()
        mask, labels = batch.get("attention_mask"), batch.get("labels")
        length = features.shape[1] if mask is None else mask.shape[1]
        # Virtual tokens of an adapter stand in front and are no units.
        features, logits = features[:, -length:], logits[:, -length:]
        real = (
            torch.ones(features.shape[:2], dtype=torch.bool, device=features.device) if mask is None else mask.bool()
        )
        row = real.nonzero()[:, 0]
        return Units(features[real].float(), logits[real].float(), None if labels is None else labels[real], row)


class Dense(HeadReadout):
    """Units are the pixels of the logits' grid [h, w]: features [B h w, D], logits [B h w, C].

    A map of labels [B, H, W] is read at the pixel nearest to each. The configuration's `semantic_loss_ignore_index`
    becomes `IGNORED_LABEL`.
    """

    units_are_rows = False
    own_task_loss = FromModel  # of whole maps

    def find(self, model: nn.Module) -> None:
        super().find(model)
        self.ignored_part = ignored_class(unwrap_peft(model).config)

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        features, logits = self.head.take_all()
        labels = batch.get("labels")
        if labels is not None:
            labels = nearest(labels, logits.shape[-2:])
            labels = labels.masked_fill(labels == self.ignored_part, IGNORED_LABEL).flatten()
        row = rows_of(batch).repeat_interleave(logits.shape[-2] * logits.shape[-1])
        return Units(by_pixel(features), by_pixel(logits), labels, row)


class Spans(HeadReadout):
    """Units are windows of questions and contexts: features [B, D] are the mean of the head's input; no logits.

    Labels [B, 2] are the first and the last token of the answer.
    """

    units_are_rows = False
    ignored_part = IGNORED_LABEL
    problem_type = REGRESSION
    own_task_loss = FromSpans

    def find(self, model: nn.Module) -> None:
        super().find(model)
        self.num_outputs = None  # the scores of tokens are no classes of a row

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        features, mask = self.head.take_all()[0], batch.get("attention_mask")
        features = features if mask is None else features[:, -mask.shape[1] :]
        return Units(mean_state(features.float(), mask), None, batch.get("labels"), rows_of(batch))

    def told(self, outputs: Mapping[str, Any]) -> Tensor:
        """Scores of every token as the first and as the last one of the answer, [B, T, 2]."""
        return span_scores(outputs).float()


class Pooled(Readout):
    """Features [B, D] of a backbone without a head: its pooled output, or the mean of its last state's real places."""

    def find(self, model: nn.Module) -> None:
        self.model = unwrap_peft(model)
        config = self.model.config
        config = config.get_text_config() if hasattr(config, "get_text_config") else config
        widths = getattr(config, "hidden_sizes", None)
        self.feature_dim = widths[-1] if widths else getattr(config, "hidden_size", None)
        if self.model.main_input_name == "pixel_values":
            outputs = outputs_of_a_picture(type(self.model), self.model.config)
            self.feature_dim = self.pooled(outputs, {}).shape[1] if outputs else self.feature_dim

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        return Units(self.pooled(outputs, batch).float(), None, batch.get("labels"), rows_of(batch))

    def pooled(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Tensor:
        """[B, D], as the model pools, or by the mean."""
        pooled = outputs.get("pooler_output")
        if pooled is not None:
            return pooled if pooled.ndim == 2 else mean_state(pooled, None)
        state, mask = outputs["last_hidden_state"], batch.get("attention_mask")
        return mean_state(state, state_mask(self.model, mask, state.shape[1]) if state.ndim == 3 else None)


READOUTS: dict[str, type[Readout]] = {
    "linear": LinearHead,
    "token": Token,
    "dense": Dense,
    "pooled": Pooled,
    "queries": Queries,
    "pictures": Pictures,
    "class_texts": ClassTexts,
    "heat_maps": HeatMaps,
    "spans": Spans,
    "nothing": Nothing,
}
"""Short name -> readout. Any other name is that of an output of the model, read by `Named`."""


def choose_readout(model: nn.Module, readout: Readout | str | None = None) -> Readout:
    """The readout of a model.

    Args:
        model: a Hugging Face or PEFT model.
        readout: one to use, its short name, or the name of an output; None chooses by the model's class.

    Raises:
        ValueError: the model has nothing that the readout could read.
    """
    if isinstance(readout, str):
        readout = READOUTS[readout]() if readout in READOUTS else Named(readout)
    return (readout or usual_readout(model)).of(model)


def usual_readout(model: nn.Module) -> Readout:
    """By the class of the model and whether it has a linear head of `num_labels` outputs."""
    name = type(unwrap_peft(model)).__name__
    if name.endswith(DENSE_HEADS):
        return Dense()
    if hasattr(unwrap_peft(model).config, TEXTS):
        return ClassTexts()
    if name.endswith(DETECTION_HEADS):
        return Queries()
    if name.endswith(KEYPOINT_HEADS):
        return HeatMaps()
    if name.endswith(TOKEN_HEADS):
        return Token()
    if name.endswith(SPAN_HEADS):
        return Spans()
    try:
        linear_heads(model)
    except ValueError:
        return Pooled() if is_backbone(model) else Nothing()
    return LinearHead()


def by_pixel(maps: Tensor) -> Tensor:
    """[B, D, h, w] as [B h w, D] in float32."""
    return maps.float().permute(0, 2, 3, 1).flatten(0, 2)


def nearest(labels: Tensor, size: torch.Size) -> Tensor:
    """A map of labels [B, H, W] at a grid of `size`, each place with the label at its middle."""
    rows, columns = (
        ((torch.arange(new, device=labels.device) + 0.5) * old / new).long()
        for new, old in zip(size, labels.shape[-2:], strict=True)
    )
    return labels[:, rows][:, :, columns]


def mean_state(state: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of a state [B, T, D] over the real tokens of a mask [B, T], or of a map [B, D, h, w] over its places."""
    if state.ndim == 4:
        return state.mean(dim=(2, 3))
    if mask is None or mask.shape != state.shape[:2]:
        return state.mean(dim=1)
    weights = mask.to(state.dtype).unsqueeze(-1)
    return (state * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
