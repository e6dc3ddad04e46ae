"""What the tasks of pre-training on text share: a collator that makes inputs and labels of a text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hf_transfer.data.text_collator import TextCollator
from hf_transfer.data.text_pretraining import make_text_collator
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.tasks.text import TextTask


class TextPretraining(TextTask):
    """A language model trained on texts without labels, or on blocks of joined texts (`block_size`)."""

    reads_labels = False
    own_arguments = TextTask.own_arguments | {"block_size", "pretraining"}
    makes: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    """Names that `pretraining` may have -> keywords that this task sets itself."""
    usual: ClassVar[str | None] = None
    """What `pretraining` is when it is left out; None for the batches of `collator`."""

    def pretraining_collator(self, processor: Any, data: DataArguments) -> TextCollator | None:
        if data.pretraining is None and self.usual is None:
            return None
        settings = {self.usual: {}} if data.pretraining is None else data.pretraining
        made = make_text_collator(settings, processor, self.makes, self.name)
        if data.block_size is not None and not made.reads_blocks:
            raise ValueError(f"`{next(iter(settings))}` packs whole texts: leave `block_size` out.")
        return made
