"""TransferModel: a Hugging Face model and its objectives in one module, so that one forward serves them all."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss
from transformers.utils import ModelOutput

from hf_transfer.core.diverged import failed_decomposition
from hf_transfer.core.task_loss import SINGLE_LABEL, declared_problem_type, problem_type_of, task_loss
from hf_transfer.domain_adaptation import OBJECTIVES as DOMAIN_ADAPTATION
from hf_transfer.few_shot import OBJECTIVES as FEW_SHOT
from hf_transfer.functional.ema import frozen_copy
from hf_transfer.functional.processes import from_all, has_several
from hf_transfer.functional.registered import registered
from hf_transfer.hub import complete_adapter
from hf_transfer.model_anatomy import HeadInput, feature_width, rest_frozen_batch_norms, unwrap_peft
from hf_transfer.model_surgery import kept_beside
from hf_transfer.objective import IGNORED_LABEL, Objective, Phase, View, alternating_name, check_needs
from hf_transfer.pretraining import OBJECTIVES as PRETRAINING
from hf_transfer.task_adaptation import OBJECTIVES as TASK_ADAPTATION

OBJECTIVES_FILE = "objectives.safetensors"
REGISTRY: dict[str, str] = {**PRETRAINING, **TASK_ADAPTATION, **FEW_SHOT, **DOMAIN_ADAPTATION}
"""Every objective by its short name, as "module:class"."""


def objective_class(name: str) -> type[Objective]:
    """The class of a registered objective.

    Raises:
        ValueError: no objective has this name.
    """
    return registered(REGISTRY, name, "objective")


def make_objectives(spec: Mapping[str, Any] | None) -> dict[str, Objective]:
    """Objectives from {"cdan": {}, "mcc": {"temperature": 2.5}}; ready-made objectives pass through.

    Raises:
        ValueError: an unknown name or a keyword's value out of range.
        TypeError: a keyword that the objective does not have.
    """
    if spec is not None and not isinstance(spec, Mapping):
        raise TypeError(f'`objectives` should map names to keywords, such as {{"l2_sp": {{}}}}, got {spec!r}.')
    made = {}
    for name, keywords in (spec or {}).items():
        if isinstance(keywords, Objective):
            made[name] = keywords
            continue
        cls = objective_class(name)
        if not isinstance(keywords or {}, Mapping):
            raise TypeError(
                f"objective `{name}`: keywords should be a mapping, such as {{weight: 1.0}}, got {keywords!r}."
            )
        try:
            made[name] = cls(**(keywords or {}))
        except TypeError as error:
            raise TypeError(f"objective `{name}`: {error}") from error
    return made


def alternates(spec: Mapping[str, Any] | None) -> bool:
    """Whether the steps of one of these objectives alternate, so that AlternatingTrainer trains them."""
    return alternating_name(make_objectives(spec)) is not None


def check_tasks(objectives: Mapping[str, Objective], problem_type: str) -> None:
    """Raises ValueError when an objective's formula is not defined for the problem type of the run."""
    for name, objective in objectives.items():
        if problem_type not in objective.tasks:
            defined = sorted(one for one in REGISTRY if problem_type in objective_class(one).tasks)
            raise ValueError(
                f"the objective `{name}` is defined for {', '.join(sorted(objective.tasks))}, and this is "
                f"{problem_type} (by the model's `problem_type` and `num_labels`, or its labels). Defined for it: "
                f"{', '.join(defined)}. An objective of your own says so by `tasks`."
            )


def label_spaces(spec: Mapping[str, Any] | None) -> set[str]:
    """Which target classes these objectives are made for: "closed", "partial", "open"."""
    return {objective.label_space for objective in make_objectives(spec).values()}


@dataclass
class TransferOutput(ModelOutput):
    """What one forward returns.

    Args:
        loss: the training loss, task loss plus weighted objectives; the task loss alone in evaluation.
        logits: [B, C].
        features: [B, D], only when the model was told to return them.
        losses: each unweighted term by name, detached, in training.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    features: Tensor | None = None
    losses: dict[str, Tensor] | None = None


class TransferModel(nn.Module):
    """Backbone, head and objectives as the one module that the Trainer wraps.

    The task loss reads the labels of the rows that have one (`labels != -100`), which in domain adaptation are the
    source rows. Objectives run in float32 outside autocast. What no objective needs is not computed.

    Args:
        model: a Hugging Face model for classification or regression with a linear head, or a PEFT model around one.
            With `supervision="model"` any model that returns its own loss.
        objectives: named loss terms, added to the task loss with their weights.
        supervision: "labels" computes the task loss from logits and labels; "model" takes the loss the model returns
            (masked modelling, language modelling).
        label_smoothing: share of the target distribution spread over all classes.

    Raises:
        ValueError: the model has no linear head, or an objective asks for something unknown.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        objectives: Mapping[str, Objective] | None = None,
        supervision: str = "labels",
        label_smoothing: float = 0.0,
    ):
        super().__init__()
        if supervision not in ("labels", "model"):
            raise ValueError(f'`supervision` should be "labels" or "model", got {supervision!r}.')
        unwrap_peft(model)
        self.model = model
        self.supervision = supervision
        self.label_smoothing = label_smoothing
        self.progress = 0.0
        self.objective_warmup = 0.0
        self.task_loss_weight = 1.0
        self.resting_modules: list[nn.Module] = []
        self.returns_features = False
        if "task" in (objectives or {}):
            raise ValueError("no objective may be called `task`: that is the name of the task loss.")
        self.objectives = nn.ModuleDict(objectives or {})
        self.needs = check_needs(self.objectives)
        self.beside = nn.ModuleDict(kept_beside(model))
        self.needs = self.needs.union(*(state.needs for state in self.beside.values()))
        self.alternating = alternating_name(self.objectives)
        self.reads_head = supervision == "labels" or len(self.objectives) > 0
        if supervision == "labels" and (declared := declared_problem_type(self.config)) is not None:
            check_tasks(self.objectives, declared)
        self.shifts_labels = supervision == "model" and _shifts_labels(unwrap_peft(model))
        if "teacher" in self.needs:
            self.teacher = frozen_copy(model)
            self._teacher_head = HeadInput(self.teacher)
        if self.reads_head:
            for objective in self.objectives.values():
                objective.build(model, feature_width(model), self.config.num_labels)
            self._head = HeadInput(model)

    # What the Trainer asks of a model.

    @property
    def config(self):
        return self.model.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def main_input_name(self) -> str:
        return unwrap_peft(self.model).main_input_name

    def activation_checkpointing_enable(self, *args, **kwargs) -> None:
        self.model.activation_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_enable(self, *args, **kwargs) -> None:
        self.model.gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        self.model.gradient_checkpointing_disable()

    def train(self, mode: bool = True) -> TransferModel:
        super().train(mode)
        if "teacher" in self.needs:
            self.teacher.eval()
        if isinstance(self.model, PeftModel):
            rest_frozen_batch_norms(self.model)
        for module in self.resting_modules:
            module.eval()
        return self

    # One batch.

    def forward(
        self,
        labels: Tensor | None = None,
        domain: Tensor | None = None,
        labels_per_batch: Tensor | None = None,
        **inputs: Tensor,
    ) -> TransferOutput:
        """One forward of the concatenated batch, the task loss and, in training, every objective.

        Args:
            labels: [B] classes (or [B] / [B, C] floats for regression and multi-label), `-100` where unknown.
            domain: [B], 0 = source, 1 = target.
            labels_per_batch: divides the summed task loss in place of this batch's own number of labels.
            inputs: what the Hugging Face model takes.
        """
        inputs = {name: value for name, value in inputs.items() if value is not None}
        if self.training and self.phase is not None and not self.phase.joins_task:
            return self._phase_output(inputs, labels, domain)
        if self.supervision == "model" and labels is not None:
            inputs["labels"] = labels
        working = self.training and len(self.objectives) > 0
        view, own_loss = self._view(inputs, labels, domain, with_extras=working)
        task_loss = own_loss if self.supervision == "model" else self.task_loss(view.logits, labels)
        if task_loss is not None and labels is not None and labels_per_batch is not None:
            task_loss = task_loss * (self.label_count(labels) / labels_per_batch.clamp(min=1e-6))
        features = view.features if self.returns_features else None
        if not self.training:
            return TransferOutput(loss=task_loss, logits=view.logits, features=features)
        terms = {} if task_loss is None else {"task": task_loss}
        if working:
            terms |= self._objective_losses(view)
        ramp = 1.0 if self.progress >= self.objective_warmup else self.progress / self.objective_warmup
        weights = {name: ramp * objective.weight for name, objective in self.objectives.items()}
        weights |= {} if self.alternating is None else {self.alternating: 1.0}
        weights["task"] = self.task_loss_weight
        total = sum(weights[name] * value for name, value in terms.items()) if terms else None
        losses = {self._logged_name(name): value.detach() for name, value in terms.items()}
        return TransferOutput(loss=total, logits=view.logits, features=features, losses=losses)

    @property
    def phase(self) -> Phase | None:
        """The present phase of the objective whose steps alternate, if there is one."""
        return None if self.alternating is None else self.objectives[self.alternating].phase

    def _phase_output(self, inputs: dict[str, Tensor], labels: Tensor | None, domain: Tensor | None) -> TransferOutput:
        """The loss of a phase that neither the task loss nor another objective joins."""
        if self.phase.runs_model:
            view, _ = self._view(inputs, labels, domain, with_extras=False)
        else:
            nothing = torch.zeros(0, device=self.device)
            view = View(nothing, nothing, labels, domain, self.progress, inputs, model=self.model)
        with torch.autocast(self.device.type, enabled=False):
            loss = self.objectives[self.alternating](view)
        return TransferOutput(loss=loss, losses={self._logged_name(self.alternating): loss.detach()})

    def _logged_name(self, term: str) -> str:
        """Each phase of an alternating objective is a term of its own."""
        return f"{term}_{self.phase.name}" if term == self.alternating else term

    def label_count(self, labels: Tensor) -> Tensor:
        """Number of labels whose mean loss the task loss is."""
        return ((labels[..., 1:] if self.shifts_labels else labels) != IGNORED_LABEL).sum()

    def task_loss(self, logits: Tensor, labels: Tensor | None) -> Tensor | None:
        """Mean loss of the rows that have a label; None without labels, a zero with a graph when no row has one.

        Which loss, `hf_transfer.core.task_loss` says.
        """
        if labels is None:
            return None
        return task_loss(logits, labels, problem_type_of(self.config, labels), self.label_smoothing)

    def settle_problem_type(self, labels: Tensor | np.ndarray, name: str = "labels") -> str:
        """Decide what kind of problem a data set's labels are, and keep it in the model's configuration.

        There no single batch that looks otherwise changes it, and a saved model has it.

        Args:
            labels: [N] or [N, C], of the whole data set.
            name: of the labels, for the message.

        Raises:
            ValueError: labels that are not those of the model, or an objective or label smoothing that is not defined
                for this kind of problem.
        """
        problem_type = problem_type_of(self.config, labels, name)
        check_tasks(self.objectives, problem_type)
        if self.label_smoothing and problem_type != SINGLE_LABEL:
            raise ValueError(f"`label_smoothing_factor` is defined for {SINGLE_LABEL}, and this is {problem_type}.")
        unwrap_peft(self.model).config.problem_type = problem_type
        return problem_type

    def _view(
        self, inputs: dict[str, Tensor], labels: Tensor | None, domain: Tensor | None, with_extras: bool
    ) -> tuple[View, Tensor | None]:
        """The batch as objectives see it, and the loss the model itself returned, if any."""
        needs = self.needs if with_extras else frozenset()
        copies = {name.removeprefix("view_"): inputs.pop(name) for name in list(inputs) if name.startswith("view_")}
        joined = inputs
        runs_copies = "views" in needs and any(
            "views" in one.needs and one.runs_views for one in self.objectives.values()
        )
        if runs_copies:
            joined = {
                name: torch.cat([value, copies[name]]) if name in copies else value for name, value in inputs.items()
            }
        for state in self.beside.values():
            state.begin(torch.cat([domain, domain]) if runs_copies and domain is not None else domain)
        with self._head if self.reads_head else nullcontext():
            outputs = self.model(**joined, **({"output_hidden_states": True} if "hidden_states" in needs else {}))
        for state in self.beside.values() if not self.training else ():
            state.begin(None)  # in training a checkpointed layer runs again in the backward pass
        if not self.reads_head:
            empty = torch.zeros(0, device=self.device)
            return View(empty, outputs.get("logits", empty)), outputs.get("loss")
        logits = outputs.logits.float()
        features = self._head.take(outputs.logits, joined.get("attention_mask")).float()
        hidden = _in_float32(outputs.get("hidden_states"))
        view = View(features, logits, labels, domain, self.progress, joined, hidden, model=self.model)
        view = _with(view, problem_type=declared_problem_type(self.config))
        if "teacher" in needs:
            view = _with(view, teacher=self._teacher_view(joined, labels, domain, "hidden_states" in needs))
        if "views" in needs:
            if not copies:
                raise ValueError("an objective needs `views`: use a collator that adds keys starting with `view_`.")
            rows = len(next(iter(copies.values())))
            if runs_copies:
                view = _split_copies(view, rows)
            else:
                empty = features.new_zeros(rows, 0)
                view = _with(view, views=View(empty, empty, labels, domain, self.progress, {**inputs, **copies}))
        return view, outputs.get("loss")

    @torch.no_grad()
    def _teacher_view(self, inputs: dict, labels: Tensor | None, domain: Tensor | None, hidden: bool) -> View:
        with self._teacher_head:
            outputs = self.teacher(**inputs, **({"output_hidden_states": True} if hidden else {}))
        features = self._teacher_head.take(outputs.logits, inputs.get("attention_mask")).float()
        hidden_states = _in_float32(outputs.get("hidden_states"))
        return View(features, outputs.logits.float(), labels, domain, self.progress, inputs, hidden_states)

    def _objective_losses(self, view: View) -> dict[str, Tensor]:
        everywhere = _gathered(view) if "global_batch" in self.needs else view
        losses = {}
        with torch.autocast(view.features.device.type, enabled=False):
            for name, objective in self.objectives.items():
                seen = everywhere if "global_batch" in objective.needs else view
                try:
                    losses[name] = objective(seen)
                except torch.linalg.LinAlgError as error:
                    raise failed_decomposition(name, seen.features, error) from error
        return losses

    @torch.no_grad()
    def after_step(self) -> None:
        """Let every objective update its moving averages and queues; the trainer calls it after the optimizer."""
        for objective in self.objectives.values():
            objective.after_step(self.model)

    # Folders.

    def save_pretrained(self, path: str | Path, state_dict: dict[str, Tensor] | None = None, **kwargs: Any) -> None:
        """An ordinary Hugging Face folder, plus `objectives.safetensors` where the objectives have state.

        Args:
            path: the folder.
            state_dict: this module's state, when it was gathered elsewhere (FSDP).
        """
        state = self.state_dict() if state_dict is None else state_dict
        inner = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
        self.model.save_pretrained(path, state_dict=inner if state_dict is not None else None, **kwargs)
        if isinstance(self.model, PeftModel) and kwargs.get("is_main_process", True):
            complete_adapter(path, self.config.id2label if self.reads_head else None)
        # Copies, because the safetensors format refuses a teacher's tied weights.
        own = {name: value.to("cpu", copy=True).contiguous() for name, value in state.items() if _is_own(name)}
        if own and kwargs.get("is_main_process", True):
            save_file(own, Path(path) / OBJECTIVES_FILE, metadata={"format": "pt"})

    def load_weights(self, path: str | Path) -> None:
        """Weights of model and objectives from a folder that `save_pretrained` wrote.

        Raises:
            FileNotFoundError: the folder has no weights, or lacks the objectives' state.
            RuntimeError: the weights do not fit this model.
        """
        path = Path(path)
        self.load_model_weights(path)
        own = {name: value for name, value in self.state_dict().items() if _is_own(name)}
        if own:
            if not (path / OBJECTIVES_FILE).is_file():
                raise FileNotFoundError(f"{path} has no {OBJECTIVES_FILE}: it was saved without these objectives.")
            stored = load_file(path / OBJECTIVES_FILE)
            if stored.keys() != own.keys():
                raise RuntimeError(
                    f"{path / OBJECTIVES_FILE} holds {sorted(stored)[:5]}..., these objectives have "
                    f"{sorted(own)[:5]}...: resume with the objectives of the first run."
                )
            self.load_state_dict(stored, strict=False)

    def load_model_weights(self, path: Path) -> None:
        """Weights of the model alone; raises as `load_weights`."""
        if isinstance(self.model, PeftModel):
            for adapter in self.model.peft_config:
                # PEFT saves each adapter but the default one in a folder of its own.
                folder = path if adapter == "default" else path / adapter
                set_peft_model_state_dict(self.model, load_peft_weights(str(folder), device="cpu"), adapter)
        else:
            self._load_plain(path)

    def _load_plain(self, path: Path) -> None:
        # from_pretrained undoes sharding, renaming and tying, in whichever format the folder is.
        stored, report = type(self.model).from_pretrained(
            path, config=self.model.config, dtype=self.model.dtype, output_loading_info=True
        )
        if report["missing_keys"]:
            raise RuntimeError(f"{path} lacks weights of this model: {sorted(report['missing_keys'])[:3]}.")
        self.model.load_state_dict(stored.state_dict())


def _shifts_labels(model: PreTrainedModel) -> bool:
    """Whether the model's own loss predicts the next token, so that no row's first label counts."""
    if not model.can_generate():
        return False
    loss = LOSS_MAPPING.get(getattr(model, "loss_type", None) or "ForCausalLM")
    return loss is ForCausalLMLoss and not getattr(model.config, "is_encoder_decoder", False)


def _is_own(name: str) -> bool:
    """Whether a tensor of a TransferModel's state belongs to the objectives, their teacher or a converter."""
    return not name.startswith("model.")


def _in_float32(states: tuple[Tensor, ...] | None) -> tuple[Tensor, ...] | None:
    return None if states is None else tuple(state.float() for state in states)


def _with(view: View, **changes: Any) -> View:
    return View(**{**view.__dict__, **changes})


def _split_copies(view: View, rows: int) -> View:
    """A view of 2B rows as the first B with the second B under `views`."""
    half = torch.arange(len(view.features), device=view.features.device) < rows
    originals = _with(view, labels=None, domain=None)
    first, second = originals.rows(half), originals.rows(~half)
    second = _with(second, labels=view.labels, domain=view.domain)
    return _with(first, labels=view.labels, domain=view.domain, views=second)


def _gathered(view: View) -> View:
    """The rows of all processes."""
    if not has_several():
        return view

    def rows(value: Tensor | None, differentiable: bool = False) -> Tensor | None:
        return None if value is None else from_all(value, differentiable)

    return View(
        rows(view.features, differentiable=True),
        rows(view.logits, differentiable=True),
        rows(view.labels),
        rows(view.domain),
        view.progress,
        teacher=None if view.teacher is None else _gathered(view.teacher),
        views=None if view.views is None else _gathered(view.views),
        model=view.model,
        problem_type=view.problem_type,
    )
