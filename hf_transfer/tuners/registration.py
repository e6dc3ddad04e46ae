"""Tells PEFT about our tuners and the layers of Flowformer; called once PEFT is imported beside `hf_transfer`."""

from __future__ import annotations

from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING
from peft.utils import PeftType, register_peft_method

from hf_transfer.models.target_modules import register_target_modules
from hf_transfer.tuners.difference import DifferenceConfig, DifferenceModel
from hf_transfer.tuners.residual import ResidualConfig, ResidualModel
from hf_transfer.tuners.side import SideConfig, SideModel

FLOWFORMER = "flowformer"
CLASSES = {
    "residual": (ResidualConfig, ResidualModel),
    "difference": (DifferenceConfig, DifferenceModel),
    "side": (SideConfig, SideModel),
}


def register_tuners() -> None:
    """Make every tuner known to `get_peft_model`, `PeftModel` and `PeftConfig`, and the layers of a Flowformer to
    PEFT's own tuners; calling it again changes nothing.
    """
    register_target_modules(FLOWFORMER)
    for name, (config, model) in CLASSES.items():
        add_peft_type(name.upper())
        if PEFT_TYPE_TO_CONFIG_MAPPING.get(PeftType(name.upper())) is not config:
            register_peft_method(name=name, config_cls=config, model_cls=model, prefix=model.prefix)


def add_peft_type(value: str) -> None:
    """Adds a member to PEFT's enumeration of methods: `register_peft_method` refuses a name that is not in it."""
    if value in PeftType.__members__:
        return
    member = str.__new__(PeftType, value)
    member._name_, member._value_ = value, value
    setattr(PeftType, value, member)  # first: an enumeration lets no known member be set
    PeftType._member_names_.append(value)
    PeftType._member_map_[value] = member
    PeftType._value2member_map_[value] = member
