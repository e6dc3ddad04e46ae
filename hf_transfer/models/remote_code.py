"""Makes a saved Flowformer loadable with `trust_remote_code=True` where `hf_transfer` is not installed."""

import json
import shutil
from pathlib import Path

from transformers.dynamic_module_utils import get_relative_import_files

from hf_transfer.models import flowformer
from hf_transfer.models.flowformer import FlowformerConfig
from hf_transfer.models.registration import AUTO_CLASSES, BACKBONES, HEADS_WITHOUT_AUTO_CLASS


def register_remote_code() -> None:
    """From now on `save_pretrained` of a Flowformer copies the source files that it needs into its folder."""
    FlowformerConfig.register_for_auto_class()
    for auto_class, model_class in {**AUTO_CLASSES, **BACKBONES}.items():
        model_class.register_for_auto_class(auto_class.__name__)
    for model_class in HEADS_WITHOUT_AUTO_CLASS:
        model_class.register_for_auto_class("AutoModel")


def add_remote_code(folder: str | Path) -> list[Path]:
    """Give a saved Flowformer the source of every head of its modality, so that it can be fine-tuned for any task.

    Raises:
        ValueError: there is no configuration, or it is not one of a Flowformer.
    """
    config_file = Path(folder) / "config.json"
    if not config_file.is_file():
        raise ValueError(f"`{folder}` has no config.json: give the folder of a saved Flowformer.")
    config = json.loads(config_file.read_text())
    if config.get("model_type") != FlowformerConfig.model_type:
        raise ValueError(f"`{folder}` should hold a Flowformer, got `model_type={config.get('model_type')!r}`.")
    config["auto_map"] = _auto_map(config["modality"], config.get("architectures") or [])
    source = Path(flowformer.__file__).parent
    modules = {source / f"{entry.split('.')[0]}.py" for entry in config["auto_map"].values()}
    modules |= {Path(file) for module in modules for file in get_relative_import_files(module)}
    config_file.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
    return [Path(shutil.copyfile(module, Path(folder) / module.name)) for module in sorted(modules)]


def _auto_map(modality: str, architectures: list[str]) -> dict[str, str]:
    """Auto class -> module and class; a head without an Auto class of its own answers to AutoModel if it was saved."""
    auto_map = {"AutoConfig": _module_of(FlowformerConfig)}
    for auto_class, model_class in {**AUTO_CLASSES, **BACKBONES}.items():
        needed = model_class.required_modality
        if needed is None or modality in ((needed,) if isinstance(needed, str) else needed):
            auto_map[auto_class.__name__] = _module_of(model_class)
    for model_class in HEADS_WITHOUT_AUTO_CLASS:
        if model_class.__name__ in architectures:
            auto_map["AutoModel"] = _module_of(model_class)
    return auto_map


def _module_of(cls: type) -> str:
    return f"{cls.__module__.rsplit('.', 1)[-1]}.{cls.__name__}"
