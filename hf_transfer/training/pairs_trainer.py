"""PairsTrainer: pre-training on image-text pairs, whose evaluation gives the embeddings of both."""

from __future__ import annotations

from typing import Any

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.readout import Named
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.training.family_trainers import PretrainingTrainer
from hf_transfer.training.trainer import TransferConfig
from hf_transfer.training.transfer_model import TransferModel

EMBEDDINGS = ("image_embeds", "text_embeds")


class PairsTrainer(PretrainingTrainer):
    """Pre-training of two towers by objectives that compare them (CLIP, SigLIP).

    Predictions are the embeddings of images and texts, (image [N, D], text [N, D]), and `compute_metrics` is called
    with them and with the classes of the rows, -100 where they have none. The evaluation has no loss: a contrast
    depends on how many rows are compared.

    Args:
        model: a CLIPModel, SiglipModel, VisionTextDualEncoderModel or a PEFT model around one.
        args: a TransferConfig.
        kwargs: as TransferTrainer takes them.

    Raises:
        ValueError: no objective that compares the towers, a model that does not give both embeddings, and all that
            TransferTrainer raises.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, args: TransferConfig, **kwargs: Any):
        kwargs.setdefault("readout", Named(EMBEDDINGS))
        super().__init__(model, args, **kwargs)
        if self.train_dataset is None:
            return  # it evaluates
        if not any("outputs" in one.needs for one in self.transfer_model.objectives.values()):
            raise ValueError("image-text pairs are learnt by an objective: name `clip` or `siglip` in `objectives`.")
        self._check_embeddings(self.train_dataset)

    @torch.no_grad()
    def _check_embeddings(self, rows: Dataset) -> None:
        """Try the first rows, before anything long starts."""
        batch = self.data_collator([self._remove_unused_columns(rows)[index] for index in range(min(2, len(rows)))])
        model = unwrap_peft(self.adapted_model)
        was_training = model.training
        try:
            taken = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
            given = model.eval()(**taken)
        except (IndexError, AttributeError, TypeError, RuntimeError) as error:
            raise ValueError(
                f"a {type(model).__name__} cannot embed these rows ({type(error).__name__}: {error}): both of its "
                "towers should give a `pooler_output`, as ViT, DINOv2, Swin and BERT do."
            ) from error
        finally:
            model.train(was_training)
        missing = [name for name in EMBEDDINGS if not isinstance(given.get(name), Tensor)]
        if missing:
            raise ValueError(f"a {type(model).__name__} gives no {missing} for a batch with {sorted(batch)}.")

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """As the Trainer's, without single numbers such as `logit_scale`."""
        numbers = {name for name, parameter in model.named_parameters() if parameter.numel() == 1}
        return [name for name in super().get_decay_parameter_names(model) if name not in numbers]

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """No loss, the embeddings of both, and the classes of the rows."""
        inputs = self._prepare_inputs(inputs)
        labels = inputs.get("labels")
        wrapped: TransferModel = self.transfer_model
        wrapped.returns_features = True
        try:
            with torch.no_grad(), self.compute_loss_context_manager():
                joined = model(**inputs).features
        finally:
            wrapped.returns_features = False
        if labels is None:
            labels = torch.full((len(joined),), IGNORED_LABEL, device=joined.device)
        return None, joined.chunk(2, dim=1), labels
