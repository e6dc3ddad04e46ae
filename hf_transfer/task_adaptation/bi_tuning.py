"""Bi-Tuning: supervised contrast of rows and classes, against the classifier's weights and in a projector.

    loss = contrast(w_y; h) + contrast(z; z'),   z = g(h), z' = g'(h'), of a row of class y with features h
    contrast(a; b) = - 1/(K + 1) sum_{k in Q_y + b} log( e(a, k) / sum_{j in Q + b} e(a, j) ),   e(a, k) = exp(cos / T)

w_y is the classifier's weight and bias of class y, held fixed here, and h has a 1 for the bias. Q holds the K newest
keys of every class, Q_y those of class y: features h' (first term) and projections z' (second term) that a momentum
copy of model and projector, f' <- m f' + (1 - m) f, gives the second augmented copy of a row. The task's cross
entropy stays beside it. Several processes put all their keys into every queue, and count every labelled row alike.

In the released code the queue of the first term holds the keys h' of the present batch already, one step earlier than
here; the queue of the second term holds the keys z' of earlier batches in both.

The batch norms of the momentum copy take the statistics of the batch, as released: running ones belong to the
present weights and not to their average.

Paper: Zhong et al., "Bi-tuning of Pre-trained Representations", 2021, https://huggingface.co/papers/2011.06182.
T = .07, K = 40, m = .999, 128 projected dimensions and weight 1 as in the released code.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import IGNORED_LABEL, BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.processes import from_all, share_of_all
from hf_transfer.modeling.anatomy import HeadInput, check_head_is_linear, head_weight, moving_batch_norms


def class_contrast(anchors: Tensor, own_keys: Tensor, queue: Tensor, labels: Tensor, temperature: float) -> Tensor:
    """Mean over the rows of the loss that tells keys of a row's own class from those of others, a scalar.

    Args:
        anchors: [B, D] of unit length.
        own_keys: [B, D] of unit length, each row's own positive key.
        queue: [C, K, D] of unit length, K keys of each class.
        labels: [B] classes.
        temperature: T.
    """
    own = (anchors * own_keys).sum(dim=1, keepdim=True)
    log_p = (torch.cat([own, anchors @ queue.flatten(0, 1).T], dim=1) / temperature).log_softmax(dim=1)
    queued = log_p[:, 1:].unflatten(1, queue.shape[:2])[torch.arange(len(labels), device=labels.device), labels]
    return -torch.cat([log_p[:, :1], queued], dim=1).mean()


class BiTuning(Objective):
    """Contrastive losses at the classifier and at a projector, with a momentum encoder and a queue of each class.

    Args:
        temperature: T > 0.
        queue_size: K, keys kept of each class.
        momentum: m of the key encoder, in [0, 1).
        projection_dim: width of the projector's output.
        seed: of the random keys the queues start with.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model is no classifier or an adapter makes its head
            nonlinear.
    """

    paper = "2011.06182"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "inputs", "labels", "views"})
    runs_views = False

    def __init__(
        self,
        temperature: float = 0.07,
        queue_size: int = 40,
        momentum: float = 0.999,
        projection_dim: int = 128,
        seed: int = 0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(temperature=temperature, queue_size=queue_size, projection_dim=projection_dim)
        require_share(momentum=momentum)
        self.temperature = temperature
        self.queue_size = queue_size
        self.momentum = momentum
        self.projection_dim = projection_dim
        self.seed = seed

    def build(self, context: BuildContext) -> None:
        context.require_classes(2, "Bi-Tuning")
        check_head_is_linear(context.model, "Bi-Tuning")
        self.projector = nn.Linear(context.feature_dim, self.projection_dim)
        self.key_projector = FrozenCopy(self.projector, self.momentum)
        self.key_model = FrozenCopy(context.model, self.momentum)
        self._key_head = HeadInput(self.key_model.module)
        self._batch_norms = moving_batch_norms(context.model, self.key_model.module)
        generator = torch.Generator().manual_seed(self.seed)
        for name, width in (("feature_queue", context.feature_dim + 1), ("projection_queue", self.projection_dim)):
            keys = torch.randn(context.num_labels, self.queue_size, width, generator=generator)
            self.register_buffer(name, F.normalize(keys, dim=2))
        self.register_buffer("places", torch.zeros(context.num_labels, dtype=torch.long))
        self._new_keys: list[tuple[Tensor, Tensor, Tensor]] = []

    def forward(self, view: View) -> Tensor:
        feature_keys, projected_keys = self._keys(view.views[0])
        new_keys = tuple(from_all(part) for part in (feature_keys, projected_keys, view.labels))
        self._new_keys.append(new_keys)
        known = view.labels != IGNORED_LABEL
        share = share_of_all(known.sum())
        if not known.any():
            return no_loss(view)
        labels, features = view.labels[known], view.features[known]
        weight, bias = head_weight(view.model)
        classes = torch.cat([weight, bias.unsqueeze(1)], dim=1)
        at_classifier = class_contrast(
            F.normalize(classes, dim=1)[labels], _with_one(features), self.feature_queue, labels, self.temperature
        )
        projected = F.normalize(self.projector(features), dim=1)
        at_projector = class_contrast(
            projected, projected_keys[known], self.projection_queue, labels, self.temperature
        )
        return share * (at_classifier + at_projector)

    @torch.no_grad()
    def _keys(self, copies: View) -> tuple[Tensor, Tensor]:
        """Features [B, D + 1] and projections [B, P] of the second copies by the momentum encoder."""
        for norm in self._batch_norms:
            norm.training = True
        with self._key_head:
            logits = self.key_model(**copies.inputs).logits
        features = self._key_head.take(logits, copies.inputs.get("attention_mask")).float()
        return _with_one(features), F.normalize(self.key_projector(features), dim=1)

    def after_step(self, model: nn.Module) -> None:
        self.key_model.update(model)
        self.key_projector.update(self.projector)
        for keys in self._new_keys:
            self._enqueue(*keys)
        self._new_keys.clear()

    def _enqueue(self, feature_keys: Tensor, projected_keys: Tensor, labels: Tensor) -> None:
        for label in labels.unique().tolist():
            if label == IGNORED_LABEL:
                continue
            rows = (labels == label).nonzero().flatten()[-self.queue_size :]
            places = (self.places[label] + torch.arange(len(rows), device=rows.device)) % self.queue_size
            self.feature_queue[label, places] = feature_keys[rows]
            self.projection_queue[label, places] = projected_keys[rows]
            self.places[label] = (self.places[label] + len(rows)) % self.queue_size


def _with_one(features: Tensor) -> Tensor:
    """[B, D] with a 1 behind, of unit length, [B, D + 1]."""
    return F.normalize(F.pad(features, (0, 1), value=1.0), dim=1)
