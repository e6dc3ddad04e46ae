"""Loading the pre-trained models that a method combines, and what is wrong with one that cannot be used."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, PreTrainedModel

from hf_transfer.core.task_loss import SINGLE_LABEL, declared_problem_type
from hf_transfer.core.task_loss import probabilities as as_probabilities
from hf_transfer.hub.adapter import are_made_up
from hf_transfer.modeling.adapters import is_adapter
from hf_transfer.modeling.head_order import order_head
from hf_transfer.modeling.loading import first_line, head_class, load_complete
from hf_transfer.modeling.processors import check_same_processor, saved_processor
from hf_transfer.models.revisions import at_revision, pinned
from hf_transfer.multi_model.composite import accepted_inputs

INPUT_OF = {"images": "pixel_values", "series": "past_values"}
"""Of what has channels, the main input of a model that reads it."""


def load_member(source: str, keyword: str, with_head: bool = True) -> PreTrainedModel:
    """A pre-trained model from a folder or the Hub, in float32.

    Args:
        source: folder, Hub id (with @REVISION for another than main) or packaged name.
        keyword: that named it, for the error.
        with_head: it has to be a classifier or a regression; otherwise a backbone will do, and a classifier keeps its
            head.

    Raises:
        ValueError: it cannot be loaded, lacks weights, or has no head where one is needed.
    """
    with told_when_unloadable(source, keyword):
        folder, stored = at_revision(source)
        config = AutoConfig.from_pretrained(folder, **stored)
        try:
            loader = head_class(config)
        except ValueError:
            if with_head:
                raise
            loader = AutoModel
        model = load_complete(loader, folder, dtype="float32", **stored)
        check_finite(model)
    return model


@contextmanager
def told_when_unloadable(source: str, keyword: str) -> Iterator[None]:
    """Loading a model that a method draws on; whatever is wrong with its folder names it, and the keyword it is from.

    Raises:
        ValueError: it is an adapter, or loading it failed.
    """
    if Path(source).is_dir() and is_adapter(Path(source)):
        raise ValueError(
            f"`{source}`, named by `{keyword}`, is an adapter alone: merge it into its base and save the whole, by "
            "`PeftModel.merge_and_unload().save_pretrained(FOLDER)`."
        )
    try:
        yield
    except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
        raise ValueError(
            f"`{source}`, named by `{keyword}`, cannot be loaded: {first_line(error)} Give a Hugging Face folder "
            "that is there (it may have been moved) or a Hub id."
        ) from error


def check_finite(model: nn.Module) -> None:
    """Raises ValueError for the first parameter that holds NaN or infinity."""
    for name, parameter in model.named_parameters():
        if not parameter.isfinite().all():
            raise ValueError(f"its tensor `{name}` holds values that are not finite: it broke down in training.")


def load_members(sources: Sequence[str]) -> list[PreTrainedModel]:
    """Classifiers or regressions of the same labels and inputs, for an ensemble or a soup, in evaluation mode.

    The outputs of all are in the order of the first one's classes.

    Args:
        sources: folders, Hub ids or packaged names.

    Raises:
        ValueError: one cannot be loaded, or differs from the first in modality, labels or saved processor.
    """
    models = [load_member(source, "sources") for source in sources]
    processor = saved_processor(sources[0]) if sources else None
    for source, model in zip(sources[1:], models[1:], strict=True):
        check_inputs(model, f"`{source}`", models[0], f"`{sources[0]}`")
        match_labels(model, f"`{source}`", models[0], f"`{sources[0]}`")
        check_same_processor(source, processor)
    return [model.eval() for model in models]


def check_processors(model: PreTrainedModel, sources: Sequence[str]) -> None:
    """Refuse models that were saved with another processor than the one in training, where it was saved with one.

    Raises:
        ValueError: the first that differs is named.
    """
    index = model.config.name_or_path
    commit = getattr(model.config, "_commit_hash", None)
    processor = saved_processor(pinned(index, commit)) if index else None
    for source in sources:
        check_same_processor(source, processor)


def check_inputs(
    member: PreTrainedModel, name: str, student: PreTrainedModel, other: str = "the model in training"
) -> None:
    """Refuse a member that cannot read the inputs of another model, by default of the one in training.

    Raises:
        ValueError: another modality, other channels, or a smaller vocabulary.
    """
    if member.main_input_name != student.main_input_name:
        raise ValueError(
            f"{name} reads `{member.main_input_name}` and {other} `{student.main_input_name}`: both have to "
            "be models of the same modality, whose inputs one processor makes."
        )
    for key, what in (("num_channels", "images"), ("num_input_channels", "series")):
        theirs, ours = (getattr(one.config, key, None) for one in (member, student))
        if member.main_input_name == INPUT_OF[what] and None not in (theirs, ours) and theirs != ours:
            raise ValueError(f"{name} reads {what} of {theirs} channels and {other} of {ours}.")
    theirs, ours = (vocabulary_of(one) for one in (member, student))
    if None not in (theirs, ours) and theirs < ours:
        raise ValueError(
            f"{name} has a vocabulary of {theirs} tokens and {other} one of {ours}: it does not read the "
            "same tokenizer's ids. Take models with the same tokenizer."
        )


def vocabulary_of(model: PreTrainedModel) -> int | None:
    return getattr(model.config.get_text_config(), "vocab_size", None)


def match_labels(
    member: PreTrainedModel, name: str, student: PreTrainedModel, other: str = "the model in training"
) -> None:
    """Put the outputs of a member in the order of another model's, by the names of their classes.

    Raises:
        ValueError: it has another number of outputs, or classes of other names.
    """
    theirs, ours = member.config.num_labels, student.config.num_labels
    if theirs != ours:
        raise ValueError(f"{name} has {theirs} labels and {other} {ours}: they have to be the same.")
    stored, wanted = ([one.config.id2label[index] for index in range(ours)] for one in (member, student))
    if are_made_up(stored) or are_made_up(wanted):
        return
    if sorted(map(str, stored)) != sorted(map(str, wanted)):
        odd = next(label for label in stored if label not in wanted)
        raise ValueError(f"{name} has other labels than {other}: `{odd}` is not among {wanted[:5]}.")
    order_head(member, stored, wanted, name)
    member.config.id2label, member.config.label2id = dict(enumerate(wanted)), {n: i for i, n in enumerate(wanted)}


def run_member(model: nn.Module, name: str, inputs: Mapping[str, Tensor]) -> Any:
    """What the member returns for the inputs of the model in training.

    Raises:
        ValueError: it cannot be run on them.
    """
    try:
        return model(**inputs)
    except (TypeError, ValueError, IndexError, RuntimeError) as error:
        if isinstance(error, torch.OutOfMemoryError):
            raise
        shapes = {key: list(value.shape) for key, value in inputs.items()}
        raise ValueError(
            f"{name} cannot be run on the inputs of the model in training, {shapes}: {first_line(error)}"
        ) from error


def fingerprint_of(model: nn.Module) -> Tensor:
    """A whole number, as a tensor [], that depends on the name and every value of all weights."""
    digest = hashlib.blake2b(digest_size=8)
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return torch.tensor(int.from_bytes(digest.digest(), "big") >> 1)


@torch.no_grad()
def predictions_of(
    models: Sequence[PreTrainedModel], dataloader: Iterable[Mapping[str, Tensor]], probabilities: bool = True
) -> tuple[Tensor, Tensor]:
    """What models predict of held-out rows, for `greedy_ensemble`.

    Args:
        models: with the same labels, as `load_members` gives them.
        dataloader: batches with `labels`.
        probabilities: of classes or of labels; False for the outputs themselves, as a regression's.

    Returns:
        Predictions [K, N, C] and labels [N, ...].
    """
    rows, labels = [[] for _ in models], []
    for batch in dataloader:
        labels.append(batch["labels"])
        for kept, model in zip(rows, models, strict=True):
            inputs = {name: value.to(model.device) for name, value in batch.items() if name != "labels"}
            logits = model.eval()(**accepted_inputs(model, inputs)).logits.float()
            kind = declared_problem_type(model.config) or SINGLE_LABEL
            kept.append(as_probabilities(logits, kind) if probabilities else logits)
    return torch.stack([torch.cat(kept) for kept in rows]).cpu(), torch.cat(labels)
