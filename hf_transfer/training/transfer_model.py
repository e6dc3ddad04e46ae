"""TransferModel: a Hugging Face model and its objectives in one module, so that one forward serves them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import PeftModel, set_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils import ModelOutput

from hf_transfer.core.diverged import failed_decomposition
from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import (
    BuildContext,
    Objective,
    Phase,
    View,
    alternating_name,
    check_needs,
    needs_of,
    outputs_of,
)
from hf_transfer.core.readout import Readout
from hf_transfer.core.supervision import FromLabels, FromModel, NoTask, TaskLoss
from hf_transfer.core.task_loss import SINGLE_LABEL, declared_problem_type, problem_type_of
from hf_transfer.data.label_sets import split_label_sets
from hf_transfer.data.visits import seed_of
from hf_transfer.hub import complete_adapter
from hf_transfer.modeling.adapters import lost_encoder
from hf_transfer.modeling.anatomy import backbone_of, hold_frozen_batch_norms, unwrap_peft
from hf_transfer.modeling.label_forms import label_form
from hf_transfer.modeling.readouts import Pooled, choose_readout
from hf_transfer.modeling.surgery import sidecars_of
from hf_transfer.training.constant_copies import CHECKSUM, constant_names, with_constants
from hf_transfer.training.delegating_model import DelegatingModel
from hf_transfer.training.gathered_view import gathered
from hf_transfer.training.joined_batches import in_float32, joined_batches, split_copies
from hf_transfer.training.loss_items import LossItems
from hf_transfer.training.objectives import REGISTRY as REGISTRY
from hf_transfer.training.objectives import alternates as alternates
from hf_transfer.training.objectives import check_readout, check_tasks, check_views
from hf_transfer.training.objectives import label_spaces as label_spaces
from hf_transfer.training.objectives import make_objectives as make_objectives
from hf_transfer.training.objectives import objective_class as objective_class

OBJECTIVES_FILE = "objectives.safetensors"
READS_OUTPUTS = frozenset({"features", "logits", "outputs", "hidden_states", "teacher", "views", "row_numbers"})
"""What an objective may ask for that a forward of the batch prepares."""


@dataclass
class TransferOutput(ModelOutput):
    """What one forward returns.

    Args:
        loss: the training loss, task loss plus weighted objectives; the task loss alone in evaluation.
        logits: [B, C].
        features: [B, D], only when the model was told to return them.
        losses: each unweighted term by name, detached, in training.
        row, unit_domain, unit_labels: [N] of each unit, only with features of parts of rows.
    """

    loss: Tensor | None = None
    logits: Tensor | None = None
    features: Tensor | None = None
    losses: dict[str, Tensor] | None = None
    row: Tensor | None = None
    unit_domain: Tensor | None = None
    unit_labels: Tensor | None = None


class TransferModel(DelegatingModel):
    """Backbone, head and objectives as the one module that the Trainer wraps.

    A readout makes units of the model's outputs: images, sentences, tokens or pixels. The task loss reads the labels
    of the units that have one (`labels != -100`), which in domain adaptation are of source rows. Objectives run in
    float32 outside autocast. What no objective needs is not computed.

    Args:
        model: a Hugging Face model, or a PEFT model around one.
        objectives: named loss terms, added to the task loss with their weights.
        readout: what of the model's outputs the objectives see: a Readout, a key of
            `hf_transfer.modeling.readouts.READOUTS` or the name of an output; chosen by the model's class when left
            out.
        task_loss: where the loss of the task comes from; when left out, the units' labels where the model has a
            linear head on rows or tokens, and else the model itself.
        label_smoothing: share of the target distribution spread over all classes in training, for labels that are
            classes.
        max_units: at most so many random units of a batch reach objectives that are bounded.

    Raises:
        ValueError: an objective asks for something unknown, or for features or logits that the readout has not.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel,
        objectives: Mapping[str, Objective] | None = None,
        readout: Readout | str | None = None,
        *,
        task_loss: TaskLoss | None = None,
        label_smoothing: float = 0.0,
        max_units: int = 2048,
    ):
        super().__init__()
        unwrap_peft(model)
        if "task" in (objectives or {}):
            raise ValueError("no objective may be called `task`: that is the name of the task loss.")
        if max_units < 2:
            raise ValueError(f"`max_units` should be at least 2, got {max_units}.")
        self.model = model
        self.label_smoothing = label_smoothing
        self.max_units = max_units
        self.progress = 0.0
        self.objective_warmup = 0.0
        self.task_loss_weight = 1.0
        self.frozen_modules: list[nn.Module] = []
        self.returns_features = False
        self.constants_checksum: str | None = None
        """Of the file beside the checkpoints with the copies that never change; None: each checkpoint has them."""
        self.register_buffer(
            "class_weights", None
        )  # of the source, [C], where class shares differ: it is trained with
        self.objectives = nn.ModuleDict(objectives or {})
        self.sidecars = nn.ModuleDict(sidecars_of(model))
        self.needs = check_needs(self.objectives).union(*(state.needs for state in self.sidecars.values()))
        self.alternating = alternating_name(self.objectives)
        reads_nothing = task_loss is not None and not task_loss.needs and not self.needs & {"features", "logits"}
        self.readout = choose_readout(model, "nothing" if reads_nothing and readout is None else readout)
        self.supervision = task_loss or usual_task_loss(self.readout, label_smoothing)
        if label_smoothing and not isinstance(self.supervision, FromLabels):
            raise ValueError(
                "`label_smoothing_factor` spreads labels that are classes of rows or tokens; the loss here is the "
                "model's own, or of objectives alone: leave it out."
            )
        if isinstance(self.supervision, NoTask) and not self.objectives:
            backbone_of(model)  # says how to load a head
        check_readout(self.objectives, self.readout, type(unwrap_peft(model)).__name__)
        check_views(self.objectives, self.readout, type(unwrap_peft(model)).__name__)
        if not self.readout.units_are_rows:
            check_tasks(self.objectives, self.readout.problem_type)
        if self.reads_labels and (declared := declared_problem_type(self.config)) is not None:
            check_tasks(self.objectives, declared)
        self.label_form = label_form(model)
        self.takes_labels = "labels" in signature(unwrap_peft(model).forward).parameters
        self.loss_items = LossItems(model, self.supervision)
        if "teacher" in self.needs:
            self.teacher = FrozenCopy(model, persistent=False)
            self.teacher_readout = self.readout.of(self.teacher.module)
        context = BuildContext(model, self.readout.feature_dim, self.readout.num_outputs, self.readout)
        for objective in self.objectives.values():
            objective.build(context)

    @property
    def reads_head(self) -> bool:
        """Whether units have logits, those of a linear head of `num_labels` outputs."""
        return self.readout.num_outputs is not None

    @property
    def reads_labels(self) -> bool:
        """Whether the task loss is of the units' labels, so that the data have to have them."""
        return isinstance(self.supervision, FromLabels)

    def train(self, mode: bool = True) -> TransferModel:
        super().train(mode)
        if isinstance(self.model, PeftModel):
            hold_frozen_batch_norms(self.model)
        for module in self.frozen_modules:
            module.eval()
        return self

    # One batch.

    def forward(
        self,
        labels: Tensor | None = None,
        domain: Tensor | None = None,
        items_per_batch: Tensor | None = None,
        row_numbers: Tensor | None = None,
        **inputs: Tensor,
    ) -> TransferOutput:
        """One forward of the concatenated batch, the task loss and, in training, every objective.

        Args:
            labels: [B] classes (or [B] / [B, C] floats for regression and multi-label), `-100` where unknown.
            domain: [B], 0 = source, 1 = target.
            items_per_batch: divides the summed task loss in place of this batch's own number of labels, or of what
                else it is a mean over, see `hf_transfer.training.loss_items`.
            row_numbers: [B], the numbers of the rows in the training set.
            inputs: what the Hugging Face model takes.
        """
        inputs, label_sets = split_label_sets({name: one for name, one in inputs.items() if one is not None})
        if self.training and self.phase is not None and not self.phase.joins_task:
            return self._phase_output(inputs, labels, domain)
        working = self.training and len(self.objectives) > 0
        if working and self.needs_no_outputs:
            view, outputs, task_loss = self._view_without_outputs(inputs, labels, domain), ModelOutput(), None
        else:
            view, outputs = self._view(inputs, labels, domain, with_extras=working)
            task_loss = self.supervision(view, outputs, self.config)
        if task_loss is not None and items_per_batch is not None:
            items = self.loss_items.count(inputs if labels is None else {**inputs, "labels": labels})
            # a model's own mean over no item is not a number
            task_loss = torch.where(items > 0, task_loss, 0.0) * (items / items_per_batch.clamp(min=1e-6))
        if not self.training:
            return self._evaluated(task_loss, view, outputs)
        terms = {} if task_loss is None else {"task": task_loss}
        if working:
            terms |= self._objective_losses(replace(view, row_numbers=row_numbers, label_sets=label_sets))
        ramp = 1.0 if self.progress >= self.objective_warmup else self.progress / self.objective_warmup
        weights = {name: ramp * objective.weight for name, objective in self.objectives.items()}
        weights |= {} if self.alternating is None else {self.alternating: 1.0}
        weights["task"] = self.task_loss_weight
        total = sum(weights[name] * value for name, value in terms.items()) if terms else None
        losses = {self._logged_name(name): value.detach() for name, value in terms.items()}
        if working:
            told = (
                (f"{name}_{part}", value) for name, one in self.objectives.items() for part, value in one.parts.items()
            )
            losses |= dict(told)
        return TransferOutput(loss=total, logits=self._told_logits(view, outputs), losses=losses)

    def _evaluated(self, task_loss: Tensor | None, view: View, outputs: ModelOutput) -> TransferOutput:
        if not self.returns_features:
            return TransferOutput(loss=task_loss, logits=self._told_logits(view, outputs))
        if self.readout.units_are_rows:
            return TransferOutput(loss=task_loss, logits=self._told_logits(view, outputs), features=view.features)
        units = {"row": view.row, "unit_domain": view.domain, "unit_labels": view.labels}
        return TransferOutput(loss=task_loss, logits=view.logits, features=view.features, **units)

    def _told_logits(self, view: View, outputs: ModelOutput) -> Tensor:
        """The logits of this process's rows for the Trainer's metrics: in float32 where units are rows."""
        told = self.readout.told(outputs)
        if told is not None:
            return told
        if self.readout.units_are_rows and view.logits is not None:
            return view.logits
        return outputs.get("logits", torch.zeros(0, device=self.device))

    @property
    def needs_no_outputs(self) -> bool:
        """Whether neither the task loss nor an objective reads what the model says of the batch, so that it need not
        run: objectives may run it themselves, as meta-learning does."""
        return self.task_loss_weight == 0 and not self.sidecars and not self.needs & READS_OUTPUTS

    def _view_without_outputs(self, inputs: dict[str, Tensor], labels: Tensor | None, domain: Tensor | None) -> View:
        problem_type = declared_problem_type(self.config) if self.reads_labels else None
        known = {"model": self.model, "problem_type": problem_type, "label_smoothing": self.label_smoothing}
        return View(None, None, labels, domain, self.progress, inputs, **known)

    @property
    def phase(self) -> Phase | None:
        """The present phase of the objective whose steps alternate, if there is one."""
        return None if self.alternating is None else self.objectives[self.alternating].phase

    @property
    def empty_term(self) -> str | None:
        """The logged name of a phase that has no loss of its own beside the task's."""
        is_empty = self.phase is not None and self.phase.loss is None
        return self._logged_name(self.alternating) if is_empty else None

    def _phase_output(self, inputs: dict[str, Tensor], labels: Tensor | None, domain: Tensor | None) -> TransferOutput:
        """The loss of a phase that neither the task loss nor another objective joins."""
        if self.phase.runs_model:
            view, _ = self._view(inputs, labels, domain, with_extras=False)
        else:
            view = self._view_without_outputs(inputs, labels, domain)
        with torch.autocast(self.device.type, enabled=False):
            loss = self.objectives[self.alternating](view)
        return TransferOutput(loss=loss, losses={self._logged_name(self.alternating): loss.detach()})

    def _logged_name(self, term: str) -> str:
        """Each phase of an alternating objective is a term of its own."""
        return f"{term}_{self.phase.name}" if term == self.alternating else term

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
    ) -> tuple[View, ModelOutput]:
        """The batch as objectives see it, and what the model returned for it and for the copies that joined it."""
        needs = self.needs if with_extras else self.needs & {"features", "logits", "outputs"}
        plain, copies = split_copies(inputs)
        runs_copies = "views" in needs and any(
            "views" in one.needs and one.runs_views for one in self.objectives.values()
        )
        batches = [plain, *({**plain, **copy} for copy in copies)]
        joined = joined_batches(batches) if runs_copies else plain
        count = len(batches) if runs_copies else 1
        domains = None if domain is None else domain.repeat(count)
        for state in self.sidecars.values():
            state.progress = self.progress
            state.begin(domains)
        asked = {"output_hidden_states": True} if "hidden_states" in needs else {}
        gives_labels = self.supervision.asks_model and self.takes_labels and labels is not None
        given = {"labels": self.label_form.given(self.model, labels, count)} if gives_labels else {}
        with self.readout, self.label_form.during(self.model, labels if gives_labels else None):
            outputs = self.model(**joined, **given, **asked)
        for state in self.sidecars.values() if not self.training else ():
            state.begin(None)  # in training a checkpointed layer runs again in the backward pass
        read = {} if labels is None else {"labels": labels.repeat(count, *[1] * (labels.ndim - 1))}
        needs = needs | self.supervision.needs | ({"features"} if self.returns_features else set())
        views = self._views(self.readout, outputs, {**joined, **read}, batches[:count], domains, needs)
        if "teacher" in needs:
            teachers = self._teacher_views(joined, read, asked, batches[:count], domains, needs)
            views = [replace(view, teacher=teacher) for view, teacher in zip(views, teachers, strict=True)]
        if "views" in needs and not copies:
            raise ValueError("an objective needs `views`: use a collator that adds keys starting with `view_`.")
        if "views" in needs and not runs_copies:
            rest = {"labels": labels, "domain": domain, "progress": self.progress}
            views += [View(inputs=batch, **rest) for batch in batches[1:]]
        return replace(views[0], views=tuple(views[1:])), outputs

    def _views(
        self,
        readout: Readout,
        outputs: ModelOutput,
        batch: dict[str, Tensor],
        batches: list[dict[str, Tensor]],
        domains: Tensor | None,
        needs: frozenset[str],
    ) -> list[View]:
        """A view of each of the batches that were joined to `batch`."""
        units = readout.read(outputs, batch)
        told = {}
        if "outputs" in needs:
            told = {name: value for name, value in outputs.items() if isinstance(value, Tensor) and value.ndim}
            wanted = outputs_of(self.objectives.values())
            told = told if wanted is None else {name: value for name, value in told.items() if name in wanted}
        view = View(
            units.features if "features" in needs else None,
            units.logits,
            units.labels,
            None if domains is None else domains[units.row],
            self.progress,
            {},
            in_float32(outputs.get("hidden_states")),
            model=self.model,
            problem_type=declared_problem_type(self.config) if self.reads_labels else None,
            row=None if readout.units_are_rows else units.row,
            outputs=told,
            class_weights=self.class_weights if self.training else None,
            label_smoothing=self.label_smoothing if self.training else 0.0,
        )
        if len(batches) == 1:
            return [replace(view, inputs=batches[0])]
        rows = len(next(iter(batches[0].values())))
        owner = units.row // rows
        return [replace(view.rows(owner == index), inputs=batch) for index, batch in enumerate(batches)]

    @torch.no_grad()
    def _teacher_views(self, joined: dict, read: dict, asked: dict, *rest: Any) -> list[View]:
        with self.teacher_readout:
            outputs = self.teacher(**joined, **asked)
        return self._views(self.teacher_readout, outputs, {**joined, **read}, *rest)

    def _objective_losses(self, view: View) -> dict[str, Tensor]:
        asking = [needs_of(one) for one in self.objectives.values() if "global_batch" in one.needs]
        everywhere = gathered(view, frozenset().union(*asking)) if asking else view
        losses = {}
        with torch.autocast(self.device.type, enabled=False):
            for name, objective in self.objectives.items():
                seen = everywhere if "global_batch" in objective.needs else view
                seen = self._bounded(seen) if objective.is_bounded else seen
                try:
                    losses[name] = objective(seen)
                except torch.linalg.LinAlgError as error:
                    raise failed_decomposition(name, seen.features, error) from error
        return losses

    def _bounded(self, view: View) -> View:
        """At most `max_units` units, drawn by the progress of the training alone: alike in all processes."""
        # a hash, because torch's generator reads the lowest 32 bits of a seed alone
        generator = torch.Generator().manual_seed(seed_of(repr(self.progress).encode()))
        return view.at_most(self.max_units, generator)

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
            complete_adapter(path, self.config, self.reads_head)
        # Copies, because the safetensors format refuses a teacher's tied weights.
        elsewhere = constant_names(self) if self.constants_checksum else set()
        names = [name for name in state if self._is_own(name) and name not in elsewhere]
        own = {name: state[name].to("cpu", copy=True).contiguous() for name in names}
        if (own or elsewhere) and kwargs.get("is_main_process", True):
            checksum = {CHECKSUM: self.constants_checksum} if elsewhere else {}
            save_file(own, Path(path) / OBJECTIVES_FILE, metadata={"format": "pt", **checksum})

    def load_weights(self, path: str | Path) -> None:
        """Weights of model and objectives from a folder that `save_pretrained` wrote.

        Raises:
            FileNotFoundError: the folder has no weights, or lacks the objectives' state.
            RuntimeError: the weights do not fit this model.
        """
        path = Path(path)
        self.load_model_weights(path)
        state = self.state_dict()
        own = {name for name in state if self._is_own(name)}
        if own:
            if not (path / OBJECTIVES_FILE).is_file():
                raise FileNotFoundError(f"{path} has no {OBJECTIVES_FILE}: it was saved without these objectives.")
            stored = load_file(path / OBJECTIVES_FILE)
            present = {name: state[name] for name in constant_names(self)}
            stored = with_constants(stored, present, path / OBJECTIVES_FILE)
            if stored.keys() != own:
                raise RuntimeError(
                    f"{path / OBJECTIVES_FILE} holds {sorted(stored)[:5]}..., these objectives have "
                    f"{sorted(own)[:5]}...: resume with the objectives of the first run."
                )
            self.load_state_dict(stored, strict=False)

    def load_model_weights(self, path: Path) -> None:
        """Weights of the model alone; raises as `load_weights`."""
        if isinstance(self.model, PeftModel):
            for adapter, config in self.model.peft_config.items():
                # PEFT saves each adapter but the default one in a folder of its own.
                folder = path if adapter == "default" else path / adapter
                weights = load_peft_weights(str(folder), device="cpu")
                if lost_encoder(config):  # it stands with the objectives' state
                    weights["prompt_embeddings"] = self.model.prompt_encoder[adapter].embedding.weight
                set_peft_model_state_dict(self.model, weights, adapter)
        else:
            self._load_plain(path)

    def _is_own(self, name: str) -> bool:
        """Whether a tensor of this state belongs to the objectives, their teacher or a converter, or to an encoder of
        virtual tokens, of which an adapter's weights hold the answer alone.
        """
        if not name.startswith("model."):
            return True
        adapters = getattr(self.model, "peft_config", {}).values() if isinstance(self.model, PeftModel) else ()
        return name.startswith("model.prompt_encoder.") and any(map(lost_encoder, adapters))

    def _load_plain(self, path: Path) -> None:
        # from_pretrained undoes sharding, renaming and tying, in whichever format the folder is.
        stored, report = type(self.model).from_pretrained(
            path, config=self.model.config, dtype=self.model.dtype, output_loading_info=True
        )
        if report["missing_keys"]:
            raise RuntimeError(f"{path} lacks weights of this model: {sorted(report['missing_keys'])[:3]}.")
        self.model.load_state_dict(stored.state_dict())


def usual_task_loss(readout: Readout, label_smoothing: float = 0.0) -> TaskLoss:
    """From the units' labels where these are the task's own; what the readout says where they are not."""
    if readout.own_task_loss is not None:
        if label_smoothing:
            raise ValueError(
                "`label_smoothing_factor`: masks, boxes, key points and spans have a loss of their own: leave it out."
            )
        return readout.own_task_loss()
    if readout.num_outputs is not None:
        return FromLabels()
    return NoTask() if isinstance(readout, Pooled) else FromModel()
