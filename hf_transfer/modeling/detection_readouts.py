"""What objectives see of a detector: its queries, or its pictures as wholes.

queries   features [B Q, D] are the last states of the queries, logits [B Q, C] their class scores; units are queries
pictures  features [B, D] are the mean of the encoder's last state, logits [B, C] the largest score of each class over
          the queries, labels [B, C] which classes a picture shows; units are pictures

Without a matching to true boxes no query has a label of its own. A detector's own loss is its task loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.readout import Readout, Units
from hf_transfer.core.supervision import FromModel
from hf_transfer.core.task_loss import MULTI_LABEL, SINGLE_LABEL, known_rows
from hf_transfer.modeling.anatomy import unwrap_peft, width_of

QUERY_COUNTS = ("num_queries", "num_detection_tokens")
WIDTHS = ("d_model", "hidden_size")
HEADS = (
    *("class_labels_classifier", "bbox_predictor"),
    *("class_embed", "bbox_embed", "enc_score_head", "enc_bbox_head", "denoising_class_embed"),
)
"""What transformers' detectors call the layers that give classes and boxes."""


class Queries(Readout):
    """Units are the queries of a detector."""

    units_are_rows = False
    ignored_part = IGNORED_LABEL
    problem_type = SINGLE_LABEL
    own_task_loss = FromModel

    def find(self, model: nn.Module) -> None:
        config = unwrap_peft(model).config
        self.feature_dim = _first_of(config, WIDTHS)
        self.queries = _first_of(config, QUERY_COUNTS)
        self.classes = config.num_labels
        self.num_outputs = class_scores(model)

    def states(self, outputs: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
        """Last states [B, Q, D] and scores [B, Q, C] of the queries; denoising queries of a training come before."""
        return outputs["last_hidden_state"][:, -self.queries :], outputs["logits"][:, -self.queries :]

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        states, scores = self.states(outputs)
        row = torch.arange(len(states), device=states.device).repeat_interleave(states.shape[1])
        labels = None if batch.get("labels") is None else torch.full_like(row, IGNORED_LABEL)
        return Units(states.flatten(0, 1).float(), scores.flatten(0, 1).float(), labels, row)

    def told(self, outputs: Mapping[str, Any]) -> Tensor:
        """Scores and boxes of the queries, [B, Q, C + 4], for metrics."""
        boxes = outputs["pred_boxes"][:, -self.queries :]
        return torch.cat([self.states(outputs)[1].float(), boxes.float()], dim=-1)


class Pictures(Queries):
    """Units are the pictures of a detector."""

    problem_type = MULTI_LABEL

    def find(self, model: nn.Module) -> None:
        super().find(model)
        self.num_outputs = self.classes

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        encoded = outputs.get("encoder_last_hidden_state")
        if encoded is None:  # YOLOS: the detection tokens stand behind those of the patches
            encoded = outputs["last_hidden_state"][:, : -self.queries]
        maps = encoded if isinstance(encoded, list | tuple) else [encoded]  # RT-DETR has one of every scale
        features = mean_of_places(maps[-1])
        scores = self.states(outputs)[1].float()[..., : self.classes].amax(dim=1)
        labels = None if batch.get("labels") is None else shown_classes(batch["labels"], self.classes)
        return Units(features, scores, labels, torch.arange(len(scores), device=scores.device))


def mean_of_places(state: Tensor) -> Tensor:
    """Mean of a state [B, T, D] over its tokens, or of a map [B, D, h, w] over its places."""
    return state.float().mean(dim=(2, 3) if state.ndim == 4 else 1)


def shown_classes(labels: Tensor, classes: int) -> Tensor:
    """Which classes tables [B, M, 5] hold, [B, C] of 0 and 1; `IGNORED_LABEL` where a table is not known."""
    shown = torch.zeros(len(labels), classes, device=labels.device)
    rows, lines = (labels[..., 0] >= 0).nonzero(as_tuple=True)
    shown[rows, labels[rows, lines, 0].long()] = 1.0
    return torch.where(known_rows(labels).unsqueeze(1), shown, float(IGNORED_LABEL))


def class_scores(model: nn.Module) -> int:
    """How many scores a query has: one for each class, and of some models one for no object.

    Raises:
        ValueError: no layer of the model gives scores of classes.
    """
    base = unwrap_peft(model)
    classes = base.config.num_labels
    found = [
        width_of(module)[1]
        for name, module in base.named_modules()
        if "class" in name and width_of(module)[1] in (classes, classes + 1)
    ]
    if not found:
        raise ValueError(f"a {type(base).__name__} has no layer that scores its {classes} classes.")
    return found[-1]


def detection_heads(model: nn.Module) -> list[str]:
    """What the model calls its layers that give classes and boxes; none where it is no detector."""
    names = {name.split(".")[-1] for name, _ in unwrap_peft(model).named_modules()}
    return [name for name in HEADS if name in names]


def detection_layers(model: nn.Module) -> list[str]:
    """`detection_heads` with the places of a list of them, one a decoder layer, in place of the list."""
    names = []
    for head in detection_heads(model):
        (found, *_) = (one for name, one in unwrap_peft(model).named_modules() if name.split(".")[-1] == head)
        names += [f"{head}.{place}" for place in range(len(found))] if isinstance(found, nn.ModuleList) else [head]
    return names


def _first_of(config: Any, names: tuple[str, ...]) -> int:
    found = [getattr(config, name) for name in names if isinstance(getattr(config, name, None), int)]
    if not found:
        raise ValueError(f"the configuration of a {config.model_type} has none of {list(names)}: it is no detector.")
    return found[0]
