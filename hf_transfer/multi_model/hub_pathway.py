"""Hub-Pathway: a small network chooses for every row which k of several models run, and weighs what they give.

    s(x) = g_1(x) + eps softplus(g_2(x)),  eps ~ N(0, 1) in training, 0 in evaluation
    w(x) = softmax of the k largest s_i(x), 0 for the others
    z(x) = sum_i w_i(x) A_i f_i(x) + b

The noise of a batch is drawn once for all processes, by a seed and a count that checkpoints hold. A model that no row
of this process chose gets a gradient of 0 there, so that processes agree on who has one.

f_i(x) are the features of model i: the input of its own head, for models of any architecture. Only the chosen models
run, each on the rows that chose it. z is a linear head on the weighted features side by side, so that the whole is an
ordinary classifier to every method. Its two further losses are the objective `pathways`.

Paper: Shu et al., "Hub-Pathway: Transfer Learning from A Hub of Pre-trained Models", NeurIPS 2022,
https://huggingface.co/papers/2206.03726. There is no released code; the generator's sizes are ours.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from torch.nn.functional import softplus
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from hf_transfer.core.registry import registered
from hf_transfer.core.task_loss import problem_type_of, task_loss
from hf_transfer.functional.processes import from_all, process_index
from hf_transfer.multi_model.composite import (
    CompositeConfig,
    CompositeModel,
    accepted_inputs,
    member_of,
    member_settings,
    shared_settings,
)

READOUT = {"choose": "hf_transfer.modeling.readouts:choose_readout"}
"""Imported when a model is made: transformers knows this class from its own import on, and readouts need PEFT."""


@strict
class HubPathwayConfig(CompositeConfig):
    """Configurations of the members, how many of them run, and the size of the network that chooses.

    Args:
        members: see CompositeConfig.
        top: k, how many models run on a row.
        generator_width: channels of the generator.
    """

    model_type = "hub_pathway"

    top: int = 2
    generator_width: int = 32


@dataclass
class PathwayOutput(ModelOutput):
    """What a forward returns.

    Args:
        loss: the task's, where there are labels.
        logits: [B, C].
        weights: [B, m], of the models for every row; 0 of those that did not run.
        active: [B, m], 1 where a model ran.
        member_logits: [B, m, C], of the models' own heads; 0 where one did not run.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    weights: Tensor | None = None
    active: Tensor | None = None
    member_logits: Tensor | None = None


class Generator(nn.Module):
    """Scores g_1(x) and noise scales g_2(x) of m models, [B, m] each, from raw pixels or token ids.

    Args:
        config: of the composite.
        reads: `pixel_values` or `input_ids`.

    Raises:
        ValueError: models of another modality.
    """

    def __init__(self, config: HubPathwayConfig, reads: str):
        super().__init__()
        width = config.generator_width
        if reads == "pixel_values":
            first = nn.Conv2d(config.num_channels, width, 3, stride=2, padding=1)
            second = nn.Conv2d(width, width, 3, stride=2, padding=1)
            self.features = nn.Sequential(first, nn.ReLU(), second, nn.ReLU())
        elif reads == "input_ids":
            self.features = nn.Embedding(config.vocab_size, width)
        else:
            raise ValueError(f"a hub of pathways reads `pixel_values` or `input_ids`, and its members `{reads}`.")
        self.scores = nn.Linear(width, 2 * len(config.members))

    def forward(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        if "pixel_values" in inputs:
            pooled = self.features(inputs["pixel_values"]).mean(dim=(2, 3))
        else:
            states, mask = self.features(inputs["input_ids"]), inputs.get("attention_mask")
            weights = torch.ones_like(states[..., :1]) if mask is None else mask.to(states.dtype).unsqueeze(-1)
            pooled = (states * weights).sum(dim=1) / weights.sum(dim=1).clamp(min=1)
        return self.scores(pooled).chunk(2, dim=1)


class Hub(nn.Module):
    """The members and the generator: from the inputs of a batch to weighted features.

    Args:
        config: of the composite.
        models: the members.
    """

    def __init__(self, config: HubPathwayConfig, models: Sequence[PreTrainedModel]):
        super().__init__()
        self.top = config.top
        self.members = nn.ModuleList(models)
        self.readouts = [registered(READOUT, "choose", "readout")(model) for model in models]
        self.widths = [readout.feature_dim for readout in self.readouts]
        self.generator = Generator(config, models[0].main_input_name)
        self.register_buffer("noise_seed", torch.randint(2**31, ()))
        self.register_buffer("noises", torch.zeros((), dtype=torch.long))

    def noise(self, scores: Tensor) -> Tensor:
        """eps [B, m] of the rows of this process, out of the noise of the rows of all; others in the next call."""
        sizes = from_all(torch.tensor([len(scores)], device=scores.device)).tolist()
        first = sum(sizes[: process_index()])
        generator = torch.Generator().manual_seed(int(self.noise_seed) + int(self.noises))
        every = torch.randn(sum(sizes), scores.shape[1], generator=generator)
        self.noises += 1
        return every[first : first + len(scores)].to(scores)

    def pathway(self, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Weights [B, m] of the models, and which of them run, [B, m] bool."""
        scores, scale = self.generator(inputs)
        if self.training:
            scores = scores + self.noise(scores) * softplus(scale)
        kept, indices = scores.topk(self.top, dim=1)
        weights = torch.zeros_like(scores).scatter(1, indices, kept.softmax(dim=1))
        return weights, torch.zeros_like(scores, dtype=torch.bool).scatter(1, indices, True)

    def forward(self, inputs: Mapping[str, Tensor], outputs: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Weighted features [B, sum D_i], weights and activity [B, m], and the members' own logits [B, m, C]."""
        weights, active = self.pathway(inputs)
        features, logits = [], []
        for index, (member, readout) in enumerate(zip(self.members, self.readouts, strict=True)):
            rows = active[:, index].nonzero().flatten()
            ours, theirs = (
                weights.new_zeros(len(weights), readout.feature_dim),
                weights.new_zeros(len(weights), outputs),
            )
            if len(rows):
                chosen = {name: value[rows] for name, value in accepted_inputs(member, inputs).items()}
                with readout:
                    answers = member(**chosen)
                units = readout.read(answers, chosen)
                ours = ours.index_copy(0, rows, weights[rows, index].unsqueeze(1) * units.features.to(ours.dtype))
                theirs = theirs.index_copy(0, rows, units.logits.to(theirs.dtype))
            elif self.training:
                ours = ours + 0 * sum(one.sum() for one in member.parameters() if one.requires_grad)
            features.append(ours)
            logits.append(theirs)
        return torch.cat(features, dim=1), weights, active, torch.stack(logits, dim=1)


class HubPathway(PreTrainedModel):
    """A hub of models of which k run on a row.

    The converter `hub_pathway` makes one of a model and checkpoints; `save_pretrained` writes one folder with all of
    them, which the Auto classes load.
    """

    config_class = HubPathwayConfig
    base_model_prefix = "hub"
    _supports_sdpa = True

    def __init__(self, config: HubPathwayConfig):
        super().__init__(config)
        check_top(config.top, len(config.members))
        self.hub = Hub(config, [member_of(settings) for settings in config.members])
        self.main_input_name = self.hub.members[0].main_input_name
        self.classifier = nn.Linear(sum(self.hub.widths), config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own distribution; members initialise themselves."""
        if isinstance(module, (nn.Conv2d, nn.Linear, nn.Embedding)):
            module.reset_parameters()

    @classmethod
    def of(cls, models: Sequence[PreTrainedModel], top: int = 2, generator_width: int = 32) -> HubPathway:
        """A hub of models with the same labels and inputs; they become its members themselves.

        Raises:
            ValueError: models that do not fit together, or more to run than there are.
        """
        settings = shared_settings(models)
        check_top(top, len(models))
        members = [member_settings(model) for model in models]
        config = HubPathwayConfig(members=members, top=top, generator_width=generator_width, **settings)
        with torch.device("meta"):  # the parts that it makes are replaced
            made = cls(config)
        made.hub = Hub(config, models)
        made.classifier = nn.Linear(sum(made.hub.widths), config.num_labels)
        return made

    def forward(
        self,
        pixel_values: Tensor | None = None,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,
        **kwargs: Any,
    ) -> PathwayOutput:
        """Logits [B, C], how the models were chosen, and the task's loss where there are labels."""
        named = {"pixel_values": pixel_values, "input_ids": input_ids, "attention_mask": attention_mask}
        inputs = CompositeModel.given({**named, "token_type_ids": token_type_ids}, kwargs)
        features, weights, active, member_logits = self.hub(inputs, self.config.num_labels)
        logits = self.classifier(features)
        if self.training:  # heads of members have a gradient without the objective `pathways` too
            logits = logits + 0 * member_logits.sum()
        loss = None if labels is None else task_loss(logits, labels, problem_type_of(self.config, labels))
        return PathwayOutput(loss, logits, weights, active.to(weights.dtype), member_logits)


def check_top(top: int, members: int) -> None:
    """Raises ValueError where so many of the members cannot run."""
    if not 1 <= top <= members:
        raise ValueError(f"`top` should be from 1 to {members}, the number of models in the hub, got {top}.")


@torch.no_grad()
def usage(model: HubPathway, batches: Iterable[Mapping[str, Tensor]]) -> Tensor:
    """Share of the rows on which each model runs in evaluation, [m]; the shares sum to k.

    Args:
        model: the hub.
        batches: inputs of the model.
    """
    was_training = model.training
    model.eval()
    active = torch.cat([model(**batch).active for batch in batches])
    model.train(was_training)
    return active.mean(dim=0)
