"""The models that tell numbers of a series, by the kind of their configuration; transformers has no Auto class.

    flowformer  FlowformerForTimeSeriesClassification, whose linear head gives `num_labels` numbers
    patchtst    PatchTSTForRegression, whose linear head gives `num_targets` numbers

Papers: Wu et al. 2022, https://huggingface.co/papers/2202.06258; Nie et al. 2023, https://huggingface.co/papers/2211.14730
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

from peft import PeftConfig
from transformers import AutoConfig, PatchTSTConfig, PatchTSTForRegression, PreTrainedConfig, PreTrainedModel

from hf_transfer.modeling.adapters import is_adapter
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForTimeSeriesClassification


class AutoModelForSeries:
    """As an Auto class of transformers: `from_pretrained` and `from_config`."""

    _model_mapping: ClassVar[Mapping[type[PreTrainedConfig], type[PreTrainedModel]]] = {
        FlowformerConfig: FlowformerForTimeSeriesClassification,
        PatchTSTConfig: PatchTSTForRegression,
    }

    @classmethod
    def from_pretrained(cls, name: str, **options: Any) -> Any:
        """The model of a folder (an adapter's too) or Hub id; keywords of `PreTrainedModel.from_pretrained`."""
        stored = {key: options[key] for key in ("trust_remote_code", "revision") if key in options}
        is_local = is_adapter(Path(name))
        base = PeftConfig.from_pretrained(name).base_model_name_or_path if is_local else name
        config = AutoConfig.from_pretrained(base, **stored)
        if isinstance(config, PatchTSTConfig) and "num_labels" in options:
            options["num_targets"] = options["num_labels"]
        return cls._class_of(config).from_pretrained(name, **options)

    @classmethod
    def from_config(cls, config: PreTrainedConfig) -> PreTrainedModel:
        """A model with random weights."""
        if isinstance(config, PatchTSTConfig):
            config.num_targets = config.num_labels
        return cls._class_of(config)(config)

    @classmethod
    def _class_of(cls, config: PreTrainedConfig) -> type[PreTrainedModel]:
        if type(config) not in cls._model_mapping:
            known = ", ".join(one.model_type for one in cls._model_mapping)
            raise ValueError(f"a {config.model_type} model has no head for series; accepted: {known}.")
        return cls._model_mapping[type(config)]
