"""What the tasks on images share: the image processor."""

from __future__ import annotations

from typing import Any, ClassVar

from transformers import PreTrainedConfig, ViTImageProcessorPil
from transformers.utils import logging

from hf_transfer.data.images import image_processor
from hf_transfer.modeling.named_backbones import BACKBONE
from hf_transfer.modeling.processors import stored_processor, whole_pictures
from hf_transfer.modeling.two_towers import named_parts
from hf_transfer.tasks.arguments import ModelArguments
from hf_transfer.tasks.task import Task

logger = logging.get_logger(__name__)


class ImageTask(Task):
    """A task whose rows are images."""

    reads: ClassVar[str] = "image"

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """The stored image processor, or a plain one of the model's size, with the colours of a named backbone; None
        where the size is not known."""
        try:
            if model.model is not None:
                return stored_processor("image", model.model, **model.stored)
        except ValueError as error:
            logger.info(f"{model.model} has no image processor: {error}")
        if (of_backbone := backbone_processor(model, config)) is not None:
            return of_backbone
        backbone = getattr(config, "backbone_config", None)
        channels = getattr(config, "num_channels", getattr(backbone, "num_channels", None))
        if isinstance(getattr(config, "image_size", None), int) and channels is not None:
            return image_processor(config.image_size, channels)
        return None


def backbone_processor(model: ModelArguments, config: PreTrainedConfig) -> ViTImageProcessorPil | None:
    """What reads whole pictures in the colours of a backbone that an architecture names; None where it names none."""
    named = named_parts(model.architecture or {}).get(BACKBONE)
    return None if named is None else whole_pictures(named, getattr(config, "image_size", None))
