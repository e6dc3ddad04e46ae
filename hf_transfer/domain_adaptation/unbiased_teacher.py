"""Unbiased teacher: a detector learns the boxes of which its moving average is sure, on changed target pictures.

    boxes = {(c, b_q) : c = argmax_k p_qk, p_qc >= threshold},   p, b = teacher(x)
    loss = detection loss of student(strong(x)) against boxes, over the target pictures that have any
    teacher <- m teacher + (1 - m) student,   m = min(1 - 1 / (t + 1), momentum) after t steps

x is a target picture as the batch has it (weakly changed, where the run augments); strong(x) has another brightness
and contrast and a square cut out, so that boxes stay where they are. Nothing is trained before `burn_in`, a share of
the training in which student and teacher learn the source. A picture without a sure box says nothing.

Paper: Liu et al., "Unbiased Teacher for Semi-Supervised Object Detection", ICLR 2021,
https://huggingface.co/papers/2102.09480 (threshold .7; momentum .9996 and weight 4, in runs of 180,000 steps), which
trains the classes of such boxes alone; detectors of transformers match classes and boxes together, so that both are
trained, as in MTTrans (Yu et al., ECCV 2022, https://huggingface.co/papers/2205.01643). Across domains: Li et al.,
"Cross-Domain Adaptive Teacher for Object Detection", CVPR 2022, https://huggingface.co/papers/2111.13216, whose
adversarial term is the objective `dann` beside this one.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import TARGET, BuildContext, Objective, View
from hf_transfer.core.task_loss import MULTI_LABEL, SINGLE_LABEL
from hf_transfer.data.image_augmentation import cut_out, recolour
from hf_transfer.data.visits import seed_of
from hf_transfer.domain_adaptation.advent import domain_of_rows
from hf_transfer.functional.keyword_checks import require_share
from hf_transfer.functional.processes import from_all
from hf_transfer.modeling.detection_readouts import Queries
from hf_transfer.modeling.label_forms import label_form

PIXELS = "pixel_values"


def sure_boxes(scores: Tensor, boxes: Tensor, classes: int, threshold: float) -> list[Tensor]:
    """The objects of every picture that a detector is sure of, tables [m, 5] of class and box.

    Args:
        scores: [B, Q, C] or [B, Q, C + 1] of queries; with one for no object they are of one class each.
        boxes: [B, Q, 4].
        classes: C.
        threshold: least probability of a class.
    """
    is_one = scores.shape[-1] > classes
    shares = scores.float().softmax(dim=-1)[..., :classes] if is_one else scores.float().sigmoid()
    best, kinds = shares.max(dim=-1)
    tables = torch.cat([kinds.unsqueeze(-1).float(), boxes.float()], dim=-1)
    return [table[sure] for table, sure in zip(tables, best >= threshold, strict=True)]


def strongly_changed(pixels: Tensor, magnitude: float, hole: float, generator: torch.Generator) -> Tensor:
    """Pictures [B, 3, H, W] with random brightness and contrast, and a square cut out.

    Args:
        pixels: as the model reads them.
        magnitude: largest change of brightness and contrast.
        hole: side of the square as a share of the picture's.
        generator: of the CPU.
    """
    drawn = (2 * torch.rand(2, len(pixels), generator=generator) - 1) * magnitude
    strength = {"brightness": drawn[0], "contrast": drawn[1], "sharpness": torch.zeros(len(pixels))}
    changed = recolour(pixels, {name: one.to(pixels.device) for name, one in strength.items()})
    return cut_out(changed.cpu(), hole, generator).to(pixels.device)


class UnbiasedTeacher(Objective):
    """Self-training of a detector on the boxes of its moving average.

    Args:
        momentum: of the teacher's moving average, in [0, 1).
        threshold: least probability of a box of the teacher, in [0, 1).
        burn_in: share of the training before which the term is 0, in [0, 1).
        magnitude: largest change of brightness and contrast, in [0, 1).
        hole: side of the square cut out, as a share of the picture's, in [0, 1).
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model is no detector.
    """

    paper = "2102.09480"
    tasks = frozenset({SINGLE_LABEL, MULTI_LABEL})
    needs = frozenset({"outputs", "inputs", "domain"})
    reads_outputs = frozenset({"logits"})

    def __init__(
        self,
        momentum: float = 0.999,
        threshold: float = 0.7,
        burn_in: float = 0.3,
        magnitude: float = 0.5,
        hole: float = 0.25,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_share(momentum=momentum, threshold=threshold, burn_in=burn_in, magnitude=magnitude, hole=hole)
        self.momentum = momentum
        self.threshold = threshold
        self.burn_in = burn_in
        self.magnitude = magnitude
        self.hole = hole

    def build(self, context: BuildContext) -> None:
        if not isinstance(context.readout, Queries):
            raise ValueError(
                f"UnbiasedTeacher trains the boxes of a detector, and the readout `{type(context.readout).__name__}` "
                "gives none: it is for object-detection; `mean_teacher` is for classes of pictures, `dacs` for masks."
            )
        self.queries, self.classes = context.readout.queries, context.readout.classes
        self.teacher = FrozenCopy(context.model, self.momentum)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def taught(self, pixels: Tensor) -> list[Tensor]:
        """The teacher's sure boxes of target pictures [B, 3, H, W], tables [m, 5]."""
        with torch.no_grad():
            told = self.teacher(**{PIXELS: pixels})
        answers = told["logits"][:, -self.queries :], told["pred_boxes"][:, -self.queries :]
        return sure_boxes(*answers, self.classes, self.threshold)

    def forward(self, view: View) -> Tensor:
        logits = view.outputs["logits"]
        nothing = logits.sum() * 0.0
        target = domain_of_rows(view, len(logits)) == TARGET
        if view.progress < self.burn_in or not target.any():
            return nothing
        pixels = view.inputs[PIXELS][target]
        tables = self.taught(pixels)
        taught = [place for place, table in enumerate(tables) if len(table)]
        self.parts = {"boxes": torch.tensor(sum(map(len, tables)) / len(tables))}
        if not from_all(torch.tensor([len(taught)], device=pixels.device)).any():
            return nothing
        # A detector counts the boxes of all processes together: one without any runs too.
        factor, taught = float(len(taught) > 0), taught or [0]
        generator = torch.Generator().manual_seed(seed_of(repr(view.progress).encode()))
        strong = strongly_changed(pixels[taught], self.magnitude, self.hole, generator)
        objects = [label_form(view.model).given(view.model, tables[place].unsqueeze(0))[0] for place in taught]
        return factor * view.model(**{PIXELS: strong}, labels=objects).loss

    def after_step(self, model: nn.Module) -> None:
        self.steps += 1
        self.teacher.update(model, min(1.0 - 1.0 / (self.steps.item() + 1), self.momentum))
