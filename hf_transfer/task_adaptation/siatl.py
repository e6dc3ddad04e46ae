"""SiATL: the language-model loss stays beside the task's and fades; layers and embeddings thaw one after the other.

    loss = decay^progress CE( softmax(E (A h_t + a) + b), x_t )        (weight .2 falls to .1 where decay = .5)

h_t is the last hidden state from which token x_t is to be told: the one before it in a causal model; the one at its
place, with 15 % of the tokens hidden (80 % by the mask token, 10 % by another token, 10 % not at all), in one that
reads both ways. E are the model's own input embeddings; A, a, b are new, A starts as the identity where it is square.

    a layer rests until progress = layers_from, the embeddings until progress = embeddings_from

Paper: Chronopoulou et al., "An Embarrassingly Simple Approach for Transfer Learning from Pretrained Language Models",
NAACL 2019, https://huggingface.co/papers/1902.10547. Weights .2 to .1 and epochs 2 and 5 for the thaws, as shares of
ten epochs, follow the released settings, where the model is a causal LSTM.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.processes import share_of_all
from hf_transfer.modeling.anatomy import backbone_of, unwrap_peft
from hf_transfer.task_adaptation.first_pass import evaluating
from hf_transfer.task_adaptation.schedule import Schedule

HIDDEN_SHARE, MASKED, REPLACED = 0.15, 0.8, 0.9


class SiATL(Objective):
    """Auxiliary language modelling of the training texts, with an exponentially fading weight.

    Args:
        mask_token_id: hides tokens from a model that reads both ways; None for a causal model.
        decay: share of the weight that is left at the end of the training, > 0.
        weight: factor of this term in the training loss at its beginning.

    Raises:
        ValueError: `decay` is not positive; at `build`, the model reads no tokens, or reads both ways and there is no
            `mask_token_id`.
    """

    paper = "1902.10547"
    tasks = ANY_PROBLEM

    def __init__(self, mask_token_id: int | None = None, decay: float = 0.5, weight: float = 0.2):
        super().__init__(weight)
        require_positive(decay=decay)
        self.mask_token_id = mask_token_id
        self.decay = decay
        self.needs = frozenset({"inputs", "hidden_states"})

    def build(self, context: BuildContext) -> None:
        context.require_rows("SiATL")
        base = unwrap_peft(context.model)
        embeddings = base.get_input_embeddings()
        if not isinstance(embeddings, nn.Embedding) or base.config.is_encoder_decoder:
            raise ValueError(
                f"SiATL models the language of texts, and {type(base).__name__} is no encoder or decoder of tokens."
            )
        if self.mask_token_id is None and reads_ahead(context.model):
            raise ValueError(
                f"{type(base).__name__} reads both ways, so it sees the token after each one: give `mask_token_id`, "
                "the tokenizer's, to hide tokens instead."
            )
        vocabulary, width = embeddings.weight.shape
        self.transform = nn.Linear(base.config.get_text_config().hidden_size, width)
        if self.transform.in_features == width:
            nn.init.eye_(self.transform.weight)
            nn.init.zeros_(self.transform.bias)
        self.bias = nn.Parameter(torch.zeros(vocabulary))

    def forward(self, view: View) -> Tensor:
        tokens = view.inputs["input_ids"]
        is_real = view.inputs.get("attention_mask", torch.ones_like(tokens)).bool()
        if self.mask_token_id is None:
            states = view.hidden_states[-1][:, -tokens.shape[1] :][:, :-1]  # virtual tokens may stand in front
            asked, targets = is_real[:, 1:] & is_real[:, :-1], tokens[:, 1:]
        else:
            asked, targets = is_real & (torch.rand(tokens.shape, device=tokens.device) < HIDDEN_SHARE), tokens
            states = backbone_of(view.model)(**{**view.inputs, "input_ids": self._hide(tokens, asked)})[0].float()
        share = share_of_all(asked.sum())
        if not asked.any():
            return no_loss(view)
        logits = F.linear(self.transform(states[asked]), token_embeddings(view.model).float(), self.bias)
        return self.decay**view.progress * share * F.cross_entropy(logits, targets[asked])

    def _hide(self, tokens: Tensor, asked: Tensor) -> Tensor:
        drawn = torch.rand(tokens.shape, device=tokens.device)
        other = torch.randint_like(tokens, len(self.bias))
        hidden = torch.where(drawn < MASKED, self.mask_token_id, torch.where(drawn < REPLACED, other, tokens))
        return torch.where(asked, hidden, tokens)


def token_embeddings(model: nn.Module) -> Tensor:
    """Embeddings [V, D] of all tokens, with what adapters they carry."""
    embeddings = unwrap_peft(model).get_input_embeddings()
    if type(embeddings) is nn.Embedding:
        return embeddings.weight
    return embeddings(torch.arange(embeddings.weight.shape[0], device=embeddings.weight.device))


@torch.no_grad()
def reads_ahead(model: nn.Module) -> bool:
    """Whether the last token changes the hidden states of the ones before it."""
    backbone = backbone_of(model)
    tokens = torch.tensor([[1, 2, 3, 4], [1, 2, 3, 5]], device=next(backbone.parameters()).device)
    with evaluating(model):
        first, second = backbone(input_ids=tokens, attention_mask=torch.ones_like(tokens))[0][:, :-1].float()
    return not torch.allclose(first, second, atol=1e-5)


class SequentialUnfreezing(Schedule):
    """The head trains from the start, the layers from a share of the training on, and the embeddings from a later one.

    Args:
        layers_from: share of the training in which the layers rest, in [0, 1].
        embeddings_from: share of the training in which the embeddings rest, in [0, 1].

    Raises:
        ValueError: a keyword is out of its range.
    """

    paper = "1902.10547"

    def __init__(self, layers_from: float = 0.2, embeddings_from: float = 0.5):
        for name, value in (("layers_from", layers_from), ("embeddings_from", embeddings_from)):
            if not 0 <= value <= 1:
                raise ValueError(f"`{name}` should be in [0, 1], got {value}.")
        self.layers_from = layers_from
        self.embeddings_from = embeddings_from

    def is_frozen(self, index: int, deepest: int, progress: float) -> bool:
        return progress < (self.embeddings_from if index == deepest else self.layers_from)
