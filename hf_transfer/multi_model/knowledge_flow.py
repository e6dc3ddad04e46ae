"""Knowledge Flow: layers of a student also read layers of frozen teachers, and learn to do without them.

    h_i = r z_i + (1 - r) ( p_i(own) z_i + sum_j p_i(j) Q_ij(z_j) ),   p_i = softmax(w_i)
    loss = l_1 t sum_i -log p_i(own) + l_2 KL( f_before(x) || f(x) )

z_i is the output of student layer i, z_j those of the teacher layers at the most similar depth, Q_ij a trained linear
map of channels, the states resized where they differ. t is the share of the training done: the student grows
independent. f_before is the model before the last update, so that letting go of a teacher is no jump. In evaluation
the student is alone, r = 1, which is what a saved folder holds.

Paper: Liu et al., "Knowledge Flow: Improve Upon Your Teachers", ICLR 2019, https://huggingface.co/papers/1904.05878.
There is no released code. Two layers a teacher as there; the factors, the rise of the first one and a start at
p_i(own) = 1/2, which spares a pre-trained student, are ours. So is r, which rises to 1 over the first half of the
training: scores move by about a learning rate a step, and after some hundred steps a student that had nothing but them
would still lean on its teachers and fail alone.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import PreTrainedModel

from hf_transfer.core.converter import converts
from hf_transfer.core.objective import BuildContext, Objective, View
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive
from hf_transfer.functional.soft_targets import distillation
from hf_transfer.modeling.anatomy import backbone_of, is_backbone, stacked_layers, unwrap_peft
from hf_transfer.modeling.surgery import Sidecar, keep_sidecar, reclass, sidecars_of
from hf_transfer.multi_model.composite import accepted_inputs
from hf_transfer.multi_model.members import check_inputs, check_processors, run_member
from hf_transfer.multi_model.teacher import Teacher

NAME = "knowledge_flow"
RELEASED = 0.5
"""Share of the training after which the student is alone."""


@converts()
def convert(model: nn.Module, *, checkpoints: Sequence[str], per_teacher: int = 2) -> nn.Module:
    """Let every layer of the backbone read layers of teachers in training, in place; names of the weights stay.

    Args:
        model: a Hugging Face model, the student.
        checkpoints: folders or Hub ids of teachers of any architecture, which read the same inputs.
        per_teacher: how many layers of each teacher a layer of the student reads.

    Raises:
        ValueError: no checkpoint, one that cannot be loaded or reads other inputs, or `per_teacher` below 1.
    """
    if isinstance(checkpoints, str) or not checkpoints:
        raise ValueError(f"`checkpoints` should be a list of at least one folder or Hub id, got {checkpoints!r}.")
    require_positive(per_teacher=per_teacher)
    base = unwrap_peft(model)
    teachers = [Teacher(source, with_head=False) for source in checkpoints]
    for teacher in teachers:
        check_inputs(teacher.model, teacher.name, base)
    check_processors(base, checkpoints)
    flow = Flow(base, teachers, per_teacher)
    keep_sidecar(base, NAME, flow)
    for index, layer in enumerate(layers_of(base)):
        reclass(layer, FlowLayer, flow=flow, index=index)
    base.register_forward_pre_hook(flow.remember, with_kwargs=True)
    return model


convert.paper = "1904.05878"


class Junction(nn.Module):
    """One student layer's maps Q of teacher states, and the scores w of all.

    Args:
        width: channels of the student's state.
        widths: of the teachers'.
    """

    def __init__(self, width: int, widths: Sequence[int]):
        super().__init__()
        self.maps = nn.ModuleList(nn.Linear(one, width) for one in widths)
        self.scores = nn.Parameter(torch.zeros(1 + len(widths)))
        nn.init.constant_(self.scores[:1].detach(), math.log(len(widths)))

    def log_own(self) -> Tensor:
        """log p(own), a scalar."""
        return self.scores.log_softmax(dim=0)[0]

    def forward(self, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """The mixture, of the shape of `own`: [B, T, D] or [B, D, H, W].

        One product for all maps, of the teachers' states one behind another, takes half the time of one for each.
        """
        states, shares = alike(others, own), self.scores.softmax(dim=0)
        weight = torch.cat([share * one.weight for share, one in zip(shares[1:], self.maps, strict=True)], dim=1)
        bias = sum(share * one.bias for share, one in zip(shares[1:], self.maps, strict=True))
        if own.ndim == 4:
            return shares[0] * own + F.conv2d(states, weight[:, :, None, None], bias)
        return shares[0] * own + F.linear(states, weight, bias)


class FlowLayer:
    """The forward of a layer that reads teachers in training; mixed into the layer's own class."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        outputs = super().forward(*args, **kwargs)
        if not (self.training or self.flow.is_repeated) or not self.flow.states:
            return outputs
        state, rest = (outputs[0], outputs[1:]) if isinstance(outputs, tuple) else (outputs, None)
        mixed = self.flow.junctions[self.index](state, self.flow.states[self.index])
        mixed = torch.lerp(mixed, state, self.flow.release)
        return mixed if rest is None else (mixed, *rest)


class Flow(Sidecar):
    """The teachers, the junctions of all student layers, and the teachers' states for the rows that are read now."""

    def __init__(self, student: PreTrainedModel, teachers: Sequence[Teacher], per_teacher: int):
        super().__init__()
        self.teachers = nn.ModuleList(teachers)
        own = layers_of(student)
        self.chosen = [
            [(k, j) for k, teacher in enumerate(teachers) for j in nearest(i, len(own), teacher.model, per_teacher)]
            for i in range(len(own))
        ]
        widths, theirs = widths_of(student), [widths_of(teacher.model) for teacher in teachers]
        self.junctions = nn.ModuleList(
            Junction(widths[i], [theirs[k][j] for k, j in chosen]) for i, chosen in enumerate(self.chosen)
        )
        self.states: list[list[Tensor]] = []
        self.is_repeated = False

    @property
    def release(self) -> float:
        """r, of the student's own state."""
        return min(1.0, self.progress / RELEASED)

    @torch.no_grad()
    def remember(self, module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Before every forward of the student in training: run the teachers, as long as they are read."""
        if self.is_repeated:
            return
        self.states = []
        if module.training and self.release < 1:
            given = dict(zip([module.main_input_name], args)) | inputs
            given = {name: value for name, value in given.items() if isinstance(value, Tensor) and name != "labels"}
            seen = [states_of(teacher.model, accepted_inputs(teacher.model, given)) for teacher in self.teachers]
            self.states = [[seen[k][j] for k, j in chosen] for chosen in self.chosen]


def layers_of(model: PreTrainedModel) -> list[nn.Module]:
    return stacked_layers(model if is_backbone(model) else backbone_of(model))


def nearest(index: int, count: int, teacher: PreTrainedModel, number: int) -> list[int]:
    """The places of the teacher's layers whose relative depth is most like that of a student's layer, in order."""
    layers = len(layers_of(teacher))
    depth = (index + 1) / count
    return sorted(sorted(range(layers), key=lambda j: (abs((j + 1) / layers - depth), j))[:number])


def states_of(model: PreTrainedModel, inputs: Mapping[str, Tensor]) -> list[Tensor]:
    """The outputs of all layers of a model in one forward pass."""
    seen: list[Tensor] = []
    handles = [
        layer.register_forward_hook(lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out))
        for layer in layers_of(model)
    ]
    try:
        run_member(model, f"a {type(model).__name__}", inputs)
    finally:
        for handle in handles:
            handle.remove()
    return seen


@torch.no_grad()
def widths_of(model: PreTrainedModel) -> list[int]:
    """Channels of the outputs of all layers, seen on empty inputs.

    Raises:
        ValueError: a model of other inputs.
    """
    config, was_training = model.config, model.training
    if model.main_input_name == "pixel_values":
        size = getattr(config, "image_size", None) or 64
        sides = size if isinstance(size, (list, tuple)) else (size, size)
        inputs = {"pixel_values": torch.zeros(1, getattr(config, "num_channels", 3), *sides)}
    elif model.main_input_name == "input_ids":
        inputs = {"input_ids": torch.ones(1, 4, dtype=torch.long)}
    elif model.main_input_name == "past_values":
        inputs = {"past_values": torch.zeros(1, 4, config.num_input_channels)}
    else:
        raise ValueError(
            f"knowledge flows between models of images, texts or series, not of `{model.main_input_name}`."
        )
    states = states_of(model.eval(), inputs)
    model.train(was_training)
    return [channels_last(state).shape[-1] for state in states]


def channels_last(state: Tensor) -> Tensor:
    """[B, T, D] as it is, a map [B, D, H, W] as [B, H, W, D]."""
    return state.movedim(1, -1) if state.ndim == 4 else state


@torch.no_grad()
def alike(states: Sequence[Tensor], own: Tensor) -> Tensor:
    """Teachers' states one behind another along the channels, [B, T, sum of D] or [B, sum of D, H, W] as the student's
    state is: places are interpolated, tokens for a map averaged."""
    if own.ndim == 4:
        maps = [one if one.ndim == 4 else one.mean(dim=1)[:, :, None, None] for one in states]
        return torch.cat(
            [one if one.shape[2:] == own.shape[2:] else F.interpolate(one, own.shape[2:]) for one in maps], 1
        )
    tokens = [channels_last(one).flatten(1, -2) for one in states]
    count = own.shape[1]
    return torch.cat(
        [one if one.shape[1] == count else F.interpolate(one.mT, size=count, mode="linear").mT for one in tokens], -1
    )


class Independence(Objective):
    """Makes a student of Knowledge Flow independent of its teachers, step by step.

    Args:
        dependency: l_1 >= 0, at the end of the training; it rises from 0.
        stability: l_2 >= 0; above 0 the model before the last update runs on every batch too.
        weight: factor of both in the training loss.

    Raises:
        ValueError: a factor is negative; at `build`, no knowledge flows into the model.
    """

    paper = "1904.05878"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "inputs"})

    def __init__(self, dependency: float = 0.1, stability: float = 0.1, weight: float = 1.0):
        super().__init__(weight)
        require_non_negative(dependency=dependency, stability=stability)
        self.dependency = dependency
        self.stability = stability

    def build(self, context: BuildContext) -> None:
        flow = sidecars_of(context.model).get(NAME)
        if flow is None:
            raise ValueError(
                "`knowledge_flow` lets go of teachers, and this model has none: name them by "
                "`converters: {teacher_layers: {checkpoints: [FOLDER, ...]}}`."
            )
        # In a tuple, so that the model in training is not registered as this objective's own.
        self._moving = (flow, [p for part in (context.model, flow) for p in part.parameters() if p.requires_grad])
        copies = self._moving[1] if self.stability else []
        self.before, self.latest = (nn.ParameterList(frozen(p) for p in copies) for _ in range(2))
        self.register_buffer("seen_progress", torch.tensor(-1.0, dtype=torch.float64))

    def forward(self, view: View) -> Tensor:
        flow, moving = self._moving
        loss = -self.dependency * view.progress * sum(junction.log_own() for junction in flow.junctions)
        if not self.stability:
            return loss
        if self.seen_progress != view.progress:  # the first batch of a step
            is_first = self.seen_progress < 0
            self._keep(moving if is_first else self.latest, moving, view.progress)
        return loss + self.stability * distillation(view.logits, self._before(view), 1.0, view.problem_type)

    @torch.no_grad()
    def _keep(self, before: Sequence[Tensor], latest: Sequence[Tensor], progress: float) -> None:
        for copies, values in ((self.before, before), (self.latest, latest)):
            for copied, value in zip(copies, values, strict=True):
                copied.copy_(value)
        self.seen_progress.fill_(progress)

    @torch.no_grad()
    def _before(self, view: View) -> Tensor:
        """Logits of the model before the last update, without dropout, on the same rows and states of the teachers."""
        flow, moving = self._moving
        with weights_held(moving, self.before), repeatable(view.model):
            flow.is_repeated = True
            try:
                return view.model(**view.inputs).logits.float()
            finally:
                flow.is_repeated = False


def frozen(parameter: Tensor) -> nn.Parameter:
    return nn.Parameter(parameter.detach().clone(), requires_grad=False)


@contextmanager
def weights_held(parameters: Sequence[nn.Parameter], values: Sequence[Tensor]) -> Iterator[None]:
    """The parameters have other values; their own come back before any backward pass reads them."""
    own = [parameter.data for parameter in parameters]
    try:
        for parameter, value in zip(parameters, values, strict=True):
            parameter.data = value.data
        yield
    finally:
        for parameter, value in zip(parameters, own, strict=True):
            parameter.data = value


@contextmanager
def repeatable(model: nn.Module) -> Iterator[None]:
    """Every module in evaluation mode, but batch norms by the statistics of the batch, as in training, without
    remembering them; all back in its own mode afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    norms = [
        one for one, is_training in modes if is_training and isinstance(one, _BatchNorm) and one.track_running_stats
    ]
    model.eval()
    try:
        for norm in norms:
            norm.training, norm.track_running_stats = True, False
        yield
    finally:
        for module, mode in modes:
            module.training = mode
        for norm in norms:
            norm.track_running_stats = True
