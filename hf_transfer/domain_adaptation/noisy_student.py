"""Noisy student: a noised student learns from the labels that a trained, unnoised teacher gives to the target.

    loss = (1/B) sum_b 1[max p_b >= threshold] CE(student(noised x_b), p_b),   p = softmax(teacher(x)), or its argmax

Noise is the student's dropout, and the second view of every row where a collator makes one. Round by round the
student, as large as its teacher or larger and trained anew, becomes the next teacher: `noisy_student` below.

Paper: Xie et al., "Self-training with Noisy Student improves ImageNet classification", CVPR 2020,
https://huggingface.co/papers/1911.04252. Soft labels and threshold .3 as there.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.readout import read_units
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.self_training import confident_cross_entropy, target_view_pair
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.loading import head_class, load_complete
from hf_transfer.models.revisions import at_revision

MODEL_FOLDER = "model"


class NoisyStudent(Objective):
    """Cross entropy on the target against a frozen teacher.

    Args:
        teacher: folder or Hub name of a trained classifier with the same classes, or that model; of any size. None
            takes the model as it is before training.
        soft: learn the teacher's probabilities; False learns its argmax.
        threshold: least probability of a teacher's prediction that counts, in [0, 1).
        augmented: noise the student's images too; the batch then carries a second view of every row.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the teacher has other classes; in training, the batch
            has no second view where one is asked for.
    """

    paper = "1911.04252"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"logits", "inputs", "domain"})

    def __init__(
        self,
        teacher: str | PreTrainedModel | None = None,
        soft: bool = True,
        threshold: float = 0.3,
        augmented: bool = False,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_share(threshold=threshold)
        if augmented:
            self.needs = self.needs | {"views"}
        self.folder = teacher if isinstance(teacher, str) else ""
        self.soft = soft
        self.threshold = threshold
        self.augmented = augmented
        if isinstance(teacher, nn.Module):
            self.teacher = FrozenCopy(teacher, persistent=False)

    def build(self, context: BuildContext) -> None:
        if not hasattr(self, "teacher"):
            teacher = load_teacher(self.folder, unwrap_peft(context.model)) if self.folder else context.model
            self.teacher = FrozenCopy(teacher, persistent=False)
        classes = self.teacher.module.config.num_labels
        if classes != context.num_labels:
            raise ValueError(f"`teacher` should have the student's {context.num_labels} classes, got {classes}.")
        self._readout = context.readout_of(self.teacher.module)

    def forward(self, view: View) -> Tensor:
        clean, noised = target_view_pair(view) if self.augmented else (view.target, view.target)
        if not len(clean.logits):
            return no_loss(view)
        with torch.no_grad():
            teacher_logits = read_units(self._readout, self.teacher, clean.inputs).logits
        if not self.soft:
            return confident_cross_entropy(noised.logits, teacher_logits, self.threshold)
        return confident_soft_cross_entropy(noised.logits, teacher_logits, self.threshold)


def confident_soft_cross_entropy(logits: Tensor, teacher_logits: Tensor, threshold: float) -> Tensor:
    """Cross entropy against the probabilities p of a teacher, of the rows where the teacher is confident.

        (1/B) sum_b 1[max p_b >= threshold] sum_c -p_bc log softmax(logits_b)_c

    Args:
        logits: [B, C], B >= 1, which are trained.
        teacher_logits: [B, C].
        threshold: least probability of the teacher's class.

    Returns:
        A scalar.
    """
    expected = teacher_logits.detach().softmax(dim=1)
    # a class that neither model gives any mass (-inf) adds 0 log 0 = 0
    log_p = logits.log_softmax(dim=1).masked_fill((logits == -torch.inf) & (expected == 0), 0.0)
    losses = -(expected * log_p).sum(dim=1)
    return (losses * (expected.max(dim=1).values >= threshold)).mean()


def load_teacher(folder: str, student: PreTrainedModel) -> PreTrainedModel:
    """The classifier in a folder or on the Hub: of the student's class where it is of the same kind, of any size.

    Raises:
        ValueError: it lacks weights, which would teach at random.
    """
    folder, stored = at_revision(folder)
    config = AutoConfig.from_pretrained(folder, **stored)
    loader = type(student) if config.model_type == student.config.model_type else head_class(config)
    return load_complete(loader, folder, **stored)


def noisy_student(
    train_round: Callable[[Path, Path | None], Any], output_dir: str | Path, rounds: int = 3, resume: bool = True
) -> Path:
    """Train a teacher on the source, then so many students, each taught by the model before.

    The teacher's folder is `output_dir/round-0`, those of the students follow, and the last student's is `output_dir`
    itself; each holds its finished model as `model`.

    Args:
        train_round: given the folder of a round and that of its teacher's model (None in round 0), trains a model,
            with `NoisyStudent(teacher=...)` where there is one, and leaves it in `model` in the round's folder, whole
            or not at all (`hf_transfer.hub.atomic_folder`).
        output_dir: where the rounds are.
        rounds: how many students.
        resume: pass over the rounds whose model is there.

    Returns:
        The folder of the last student's model.

    Raises:
        ValueError: `rounds` is less than 1.
        FileNotFoundError: a round left no model.

    Example:
        >>> def train_round(folder, teacher):
        ...     objectives = {} if teacher is None else {"noisy_student": {"teacher": str(teacher)}}
        ...     trainer = DomainAdaptationTrainer(new_model(), config(folder), objectives=objectives, **data)
        ...     trainer.train(resume_from_checkpoint=True)
        ...     with atomic_folder(folder / "model") as staging:
        ...         trainer.adapted_model.save_pretrained(staging)
        >>> noisy_student(train_round, "outputs/noisy_student", rounds=2)
    """
    require_positive(rounds=rounds)
    root, teacher = Path(output_dir), None
    for number in range(rounds + 1):
        folder = root / f"round-{number}" if number < rounds else root
        model = folder / MODEL_FOLDER
        if not (resume and model.is_dir()):
            train_round(folder, teacher)
        if not model.is_dir():
            raise FileNotFoundError(f"round {number} left no model in {model}.")
        teacher = model
    return teacher
