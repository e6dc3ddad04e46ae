"""How well the embeddings of images and texts fit each other: retrieval, and classification by the names of classes.

    recall at k = mean over queries of [ the own partner is among the k nearest ]
    class of an image = argmax_c cos(image, e_c),   e_c = mean over prompts of the embedding of "prompt with name c"

Where several partners are equally near, a query counts by the chance that its own comes first: embeddings that are all
alike have a recall of k / N, not of 1.

Paper: Radford et al., ICML 2021, https://huggingface.co/papers/2103.00020, whose prompt is "a photo of a {}.".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import EvalPrediction

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.data.captions import caption_tokens
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.class_texts import USUAL_PROMPT

PROMPTS = (USUAL_PROMPT,)
KS = (1, 5)
ROWS_AT_ONCE = 1024


def recall_at(queries: Tensor, gallery: Tensor, ks: Sequence[int] = KS) -> list[float]:
    """The share of queries that find their partner among the k nearest, for each k.

    Args:
        queries: [N, D].
        gallery: [N, D]; row i is the partner of query i.
        ks: how many are looked at.
    """
    queries, gallery = F.normalize(queries.float(), dim=1), F.normalize(gallery.float(), dim=1)
    found = torch.zeros(len(ks), dtype=torch.double)
    for start in range(0, len(queries), ROWS_AT_ONCE):
        near = queries[start : start + ROWS_AT_ONCE] @ gallery.T
        own = near[torch.arange(len(near)), start + torch.arange(len(near))].unsqueeze(1)
        nearer, as_near = (near > own).sum(1).double(), (near == own).sum(1).double()
        for index, k in enumerate(ks):
            shares = ((k - nearer) / as_near.clamp(min=1)).clamp(0, 1)
            found[index] += shares.where(as_near > 0, 0.0).sum().cpu()  # not a number is near to nothing
    return (found / len(queries)).tolist()


@torch.no_grad()
def class_embeddings(
    model: Any,
    tokenizer: Any,
    names: Sequence[str],
    prompts: Sequence[str] = PROMPTS,
    max_length: int | None = None,
) -> Tensor:
    """e_c of every class, [C, D] of unit length.

    Args:
        model: with `get_text_features`.
        tokenizer: of its text tower.
        names: of the classes.
        prompts: texts with a `{}` for the name.
        max_length: of a text in tokens, as in training.
    """
    model = unwrap_peft(model)
    was_training = model.training
    model.eval()
    mean = 0.0
    for prompt in prompts:
        tokens = caption_tokens([prompt.format(name) for name in names], tokenizer, model.config, max_length)
        batch = tokenizer.pad(tokens, return_tensors="pt").to(model.device)
        mean = mean + F.normalize(model.get_text_features(**batch).pooler_output.float(), dim=1)
    model.train(was_training)
    return F.normalize(mean, dim=1)


def check_prompts(prompts: Sequence[str]) -> None:
    """Raises ValueError when there is no prompt, or one has no single place for the name."""
    wrong = [prompt for prompt in prompts if not isinstance(prompt, str) or prompt.count("{}") != 1]
    if wrong or not prompts:
        raise ValueError(f"`prompts` should be texts with one {{}} for the name of a class, got {wrong or prompts}.")


@dataclass(frozen=True)
class PairMetrics:
    """`compute_metrics` of a PairsTrainer: recall in both directions, zero-shot accuracy, and what chance gives.

    Args:
        model: in training.
        tokenizer: of its text tower.
        class_names: of the rows' classes; empty where they have none.
        prompts: see `class_embeddings`.
        max_length: likewise.
    """

    model: Any
    tokenizer: Any
    class_names: tuple[str, ...] = ()
    prompts: tuple[str, ...] = PROMPTS
    max_length: int | None = None

    def __call__(self, prediction: EvalPrediction) -> dict[str, float]:
        images, texts = (torch.as_tensor(part) for part in prediction.predictions)
        metrics = {}
        for name, queries, gallery in (("image_to_text", images, texts), ("text_to_image", texts, images)):
            for k, share in zip(KS, recall_at(queries, gallery), strict=True):
                metrics[f"{name}_recall_{k}"] = share
        metrics |= {f"recall_{k}_by_chance": min(1.0, k / len(images)) for k in KS}
        labels = torch.as_tensor(prediction.label_ids)
        known = labels != IGNORED_LABEL
        if self.class_names and known.any():
            metrics |= self._zero_shot(images[known], labels[known])
        return metrics

    def _zero_shot(self, images: Tensor, labels: Tensor) -> dict[str, float]:
        classes = class_embeddings(self.model, self.tokenizer, self.class_names, self.prompts, self.max_length).cpu()
        answers = (F.normalize(images.float(), dim=1) @ classes.T).argmax(dim=1)
        return {
            "zero_shot_accuracy": (answers == labels).double().mean().item(),
            "zero_shot_by_chance": 1 / len(self.class_names),
            "zero_shot_largest_class": labels.bincount().max().item() / len(labels),
        }
