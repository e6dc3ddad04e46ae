"""Conditional domain adversarial training: the discriminator sees features and class predictions together.

    loss = 1/2 E_source[-w log D(R(f (x) g))] + 1/2 E_target[-w log(1 - D(R(f (x) g)))]
    g = softmax(logits), detached

f (x) g is the outer product, or, where D * C exceeds `max_outer_dim`, the randomised product
(A f) * (B g) / sqrt(d) with fixed Gaussian A [d, D] and B [d, C]. w = 1, or with `entropy_conditioning` (CDAN+E)
w_i = 1 + exp(-H(g_i)), normalised to sum to the batch size. R is the gradient reversal layer. With `label_shift:
correct` source rows are further weighted by their class (IWCDAN, https://huggingface.co/papers/2003.04475).

Paper: Long et al., "Conditional Adversarial Domain Adaptation", NeurIPS 2018,
https://huggingface.co/papers/1705.10667. 4096 and the widths as in the paper and its released code.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.domain_discriminator import DomainDiscriminator, domain_discrimination_loss
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import certainty_weights, gradient_reversal, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_positive


def outer_product(features: Tensor, predictions: Tensor) -> Tensor:
    """f (x) g of every row: [B, D], [B, C] -> [B, C * D]."""
    return (predictions.unsqueeze(2) * features.unsqueeze(1)).flatten(start_dim=1)


class RandomizedProduct(nn.Module):
    """(A f) * (B g) / sqrt(out_dim), whose inner products are those of the outer product in expectation.

    Args:
        feature_dim: D.
        num_labels: C.
        out_dim: width of the output.
        seed: of the Gaussian matrices, which are buffers and so travel with checkpoints.

    Shape: [B, D], [B, C] -> [B, out_dim].
    """

    def __init__(self, feature_dim: int, num_labels: int, out_dim: int = 1024, seed: int = 0):
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.register_buffer("feature_map", torch.randn(feature_dim, out_dim, generator=generator))
        self.register_buffer("prediction_map", torch.randn(num_labels, out_dim, generator=generator))

    def forward(self, features: Tensor, predictions: Tensor) -> Tensor:
        out_dim = self.feature_map.shape[1]
        return (features @ self.feature_map) * (predictions @ self.prediction_map) / out_dim**0.5


class CDAN(Objective):
    """Conditional domain adversarial network on features and predictions.

    Args:
        entropy_conditioning: weigh rows by how certain their prediction is (CDAN+E).
        hidden_size: width of the discriminator's two hidden layers.
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress of the training.
        max_outer_dim: largest D * C for which the exact outer product is used.
        randomized_dim: width of the randomised product used above that.
        seed: of the randomised product.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a size or coefficient is not positive.
    """

    paper = "1705.10667"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "logits", "domain", "global_batch"})
    weighs_source = True
    is_bounded = True

    def __init__(
        self,
        entropy_conditioning: bool = False,
        hidden_size: int = 1024,
        max_reversal: float = 1.0,
        warm_start: float = 10.0,
        max_outer_dim: int = 4096,
        randomized_dim: int = 1024,
        seed: int = 0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(hidden_size=hidden_size, max_reversal=max_reversal, warm_start=warm_start)
        require_positive(max_outer_dim=max_outer_dim, randomized_dim=randomized_dim)
        self.entropy_conditioning = entropy_conditioning
        self.hidden_size = hidden_size
        self.max_reversal = max_reversal
        self.warm_start = warm_start
        self.max_outer_dim = max_outer_dim
        self.randomized_dim = randomized_dim
        self.seed = seed

    def build(self, context: BuildContext) -> None:
        width = context.feature_dim * context.num_labels
        self.randomized_product = None
        if width > self.max_outer_dim:
            width = self.randomized_dim
            self.randomized_product = RandomizedProduct(context.feature_dim, context.num_labels, width, self.seed)
        self.discriminator = DomainDiscriminator(width, self.hidden_size)

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        predictions = view.logits.detach().softmax(dim=1)
        product = outer_product if self.randomized_product is None else self.randomized_product
        coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        joint = gradient_reversal(product(view.features, predictions), coefficient)
        weights = view.unit_weights
        if self.entropy_conditioning:
            weights = certainty_weights(view.logits) * (1.0 if weights is None else weights)
        return domain_discrimination_loss(self.discriminator(joint), view.domain, weights)
