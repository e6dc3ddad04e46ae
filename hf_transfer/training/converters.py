"""Converters: methods that change how a model is built. `convert_model(model, {"stoch_norm": {"p": 0.5}})`.

A `hf_transfer.core.converter.Converter` is registered by its family under the method's name. It keeps the names of
the model's parameters, so that what is trained through it is saved as an ordinary model; where it cannot, its `export`
makes the model that a run saves.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from hf_transfer.core.converter import Converter
from hf_transfer.core.keywords import checked_keywords
from hf_transfer.core.registry import registered
from hf_transfer.domain_adaptation import CONVERTERS as DOMAIN_ADAPTATION
from hf_transfer.domain_generalization import CONVERTERS as DOMAIN_GENERALIZATION
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.multi_model import CONVERTERS as MULTI_MODEL
from hf_transfer.pretraining import CONVERTERS as PRETRAINING
from hf_transfer.task_adaptation import CONVERTERS as TASK_ADAPTATION

REGISTRY: dict[str, str] = {
    **PRETRAINING,
    **TASK_ADAPTATION,
    **DOMAIN_ADAPTATION,
    **DOMAIN_GENERALIZATION,
    **MULTI_MODEL,
}
"""Every converter by its short name, as "module:converter"."""
_CONVERSIONS = "_hf_transfer_conversions"


def converter(name: str) -> Converter:
    """A registered converter.

    Raises:
        ValueError: no converter has this name.
    """
    return registered(REGISTRY, name, "converter")


def convert_model(model: nn.Module, spec: Mapping[str, Any] | None) -> nn.Module:
    """The model, changed by each converter in turn.

    Args:
        model: a Hugging Face model.
        spec: keywords of each converter by its name, such as {"stoch_norm": {"p": 0.5}}.

    Raises:
        ValueError: an unknown name, a keyword's value out of range, or a model that a converter cannot change.
        TypeError: a keyword that the converter does not have.
    """
    for name, keywords in (spec or {}).items():
        change = converter(name)
        checked = checked_keywords(change, keywords, f"converter `{name}`")
        try:
            model = change(model, **checked)
        except TypeError as error:
            raise TypeError(f"converter `{name}`: {error}") from error
        unwrap_peft(model).__dict__.setdefault(_CONVERSIONS, {})[name] = checked
    return model


def exported(model: nn.Module) -> nn.Module:
    """What is saved of a trained model: itself, or what one of its converters makes of it for a folder of its own."""
    for name in conversions_of(model):
        export = converter(name).export
        model = model if export is None else export(model)
    return model


def conversions_of(model: nn.Module) -> dict[str, dict[str, Any]]:
    """The converters that `convert_model` changed a model by, with their keywords."""
    return dict(unwrap_peft(model).__dict__.get(_CONVERSIONS, {}))


def check_adapter(spec: Mapping[str, Any] | None, base: str | None) -> None:
    """Raises ValueError where an adapter would be trained on a converted model that no folder holds: the adapter's own
    folder names the plain one."""
    changing = [name for name in spec or {} if converter(name).changes_outputs]
    if changing:
        raise ValueError(
            f"`{changing[0]}` changes what the weights of `{base}` give, and a `peft` adapter would be saved for the "
            "plain model: pre-train without `peft` first, then adapt the saved folder."
        )
