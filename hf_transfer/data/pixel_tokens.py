"""Images as sequences of colours, one token a pixel, as Image-GPT reads them.

    token of a pixel = argmin over k of |colour - c_k|^2,   c_1 ... c_K from `hf_transfer.data.pixel_clusters`

Behind a start token (number K) stand the pixels row by row.

Paper: Chen et al., "Generative Pretraining from Pixels", ICML 2020, https://proceedings.mlr.press/v119/chen20s.html:
15 % of the pixels hidden where these are to be filled in.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, Self

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedConfig

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.holes import row_name
from hf_transfer.data.images import read_image, undecoded
from hf_transfer.data.text_collator import check_share
from hf_transfer.data.text_length import text_positions
from hf_transfer.data.visits import row_seed

COLOURS = 3
IGNORED = -100


def reads_pixel_tokens(processor: Any) -> bool:
    """Whether an image processor gives a token for each pixel."""
    return getattr(processor, "clusters", None) is not None


def start_token(processor: Any) -> int:
    """The number of the token in front of the pixels, and in place of hidden ones."""
    return len(processor.clusters)


def pixel_tokens(dataset: Dataset, column: str, config: PreTrainedConfig, processor: Any) -> Dataset:
    """Rows `input_ids` [1 + N] and, where there are labels, `labels`; the last pixels are left out where the model has
    fewer positions.

    Args:
        dataset: rows with images.
        column: that holds them.
        config: of the model.
        processor: of Image-GPT, with clusters.

    Raises:
        ValueError: the model has no embedding for the start token, or a picture cannot be read.
    """
    start, vocabulary = start_token(processor), getattr(config, "vocab_size", None)
    if vocabulary is not None and vocabulary <= start:
        raise ValueError(
            f"the image processor has {start} colours and a start token, and the model `vocab_size={vocabulary}`: use "
            "the processor that the model was saved with."
        )
    images, most = undecoded(dataset, column), text_positions(config)

    def convert(rows: dict, places: list[int]) -> dict:
        pictures = [read_image(cell, COLOURS, row_name(images, at, column)) for cell, at in zip(rows[column], places)]
        tokens = processor(pictures)["input_ids"]
        return {"input_ids": [[start, *np.asarray(row).tolist()][:most] for row in tokens]}

    rest = [name for name in dataset.column_names if name not in LABEL_COLUMNS]
    ready = images.map(convert, batched=True, with_indices=True, remove_columns=rest, desc="Reading pixels")
    return ready.rename_column("label", "labels") if "label" in ready.column_names else ready


@dataclass(frozen=True)
class NextPixelCollator:
    """Gives `input_ids` and `labels` [B, 1 + N], the same: a causal model shifts them itself.

    loss = - mean over pixels i of log p(x_i | start, x_1 ... x_{i-1})
    """

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        tokens = torch.stack([torch.as_tensor(row["input_ids"]) for row in rows])
        return {"input_ids": tokens, "labels": tokens.clone()}


@dataclass(frozen=True)
class MaskedPixelCollator:
    """Gives `input_ids` and `labels` [B, 1 + N]; hidden pixels have the start token and are the labels.

        loss = - mean over hidden pixels i of log p(x_i | the pixels that are not hidden)

    A row that comes with its visit is hidden anew in each epoch; one without, as in evaluation, by its content.

    Args:
        hidden_token: number of the token in place of hidden pixels.
        probability: of a pixel to be hidden.
        seed: of the draws; that of the training when left out.

    Raises:
        ValueError: `probability` is not in (0, 1].
    """

    hidden_token: int
    probability: float = 0.15
    seed: int | None = field(default=None, kw_only=True)
    reads_visits: ClassVar[bool] = True

    def __post_init__(self):
        check_share("probability", self.probability)

    def seeded(self, seed: int) -> Self:
        """The same with the seed that was left out."""
        return self if self.seed is not None else replace(self, seed=seed)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        tokens = torch.stack([torch.as_tensor(row["input_ids"]) for row in rows])
        hidden = torch.stack([self._hidden(row, one) for row, one in zip(rows, tokens, strict=True)])
        return {
            "input_ids": tokens.masked_fill(hidden, self.hidden_token),
            "labels": tokens.masked_fill(~hidden, IGNORED),
        }

    def _hidden(self, row: Mapping[str, Any], tokens: Tensor) -> Tensor:
        """[1 + N] bool, at least one pixel, never the start token."""
        generator = torch.Generator().manual_seed(row_seed(row, tokens.tolist(), self.seed or 0))
        hidden = torch.rand(len(tokens), generator=generator) < self.probability
        hidden[0] = False
        if not hidden.any():
            hidden[torch.randint(1, len(tokens), (), generator=generator)] = True
        return hidden
