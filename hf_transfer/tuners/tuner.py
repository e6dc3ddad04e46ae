"""What our tuners add to PEFT's: layers found from the model, clear refusals, and batch norms that rest."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from peft import PeftConfig
from peft.tuners.tuners_utils import BaseTuner
from torch import nn

from hf_transfer.modeling.anatomy import hold_frozen_batch_norms


class Tuner(BaseTuner):
    """A PEFT tuner whose layers are made by `tuner_layer_cls(base_layer, adapter_name, config)`.

    Subclasses set `prefix` and `tuner_layer_cls` and write `default_targets`. A layer has `update_layer(adapter_name,
    config)` for a further adapter and `check_mergeable(adapter_names)`.
    """

    target_module_mapping: dict[str, list[str]] = {}

    def default_targets(self, config: PeftConfig) -> set[str]:
        """Names of the modules to adapt when `config.target_modules` is None."""
        raise NotImplementedError(f"{type(self).__name__} should define `default_targets`.")

    def train(self, mode: bool = True) -> Tuner:
        """As every module's, but frozen batch norms keep to their stored statistics, which no adapter saves."""
        super().train(mode)
        hold_frozen_batch_norms(self.model)
        return self

    def _prepare_adapter_config(self, peft_config: PeftConfig, model_config: dict[str, Any]) -> PeftConfig:
        if peft_config.target_modules is None:
            peft_config.target_modules = self.default_targets(peft_config)
            if not peft_config.target_modules:
                raise ValueError(
                    f"{type(peft_config).__name__} found no layers to adapt in {type(self.model).__name__}: name them "
                    "in `target_modules`."
                )
        return peft_config

    def _create_and_replace(
        self,
        peft_config: PeftConfig,
        adapter_name: str,
        target: nn.Module,
        target_name: str,
        parent: nn.Module,
        current_key: str,
        parameter_name: str | None = None,
    ) -> None:
        if isinstance(target, self.tuner_layer_cls):
            target.update_layer(adapter_name, peft_config)
            return
        layer = self.tuner_layer_cls(target, adapter_name, peft_config)
        if adapter_name not in self.active_adapters:
            layer.requires_grad_(False)
        self._replace_module(parent, target_name, layer, target)

    def _replace_module(self, parent: nn.Module, child_name: str, new_module: nn.Module, child: nn.Module) -> None:
        # The layers make their adapters where the base layer is, so nothing is left to move.
        setattr(parent, child_name, new_module)

    def _check_merge_allowed(self) -> None:
        super()._check_merge_allowed()
        for module in self.model.modules():
            if isinstance(module, self.tuner_layer_cls):
                module.check_mergeable(self.active_adapters)

    @classmethod
    def _remove_adapter_name_from_key(cls, key: str, adapter_name: str) -> str:
        # PEFT looks for the name in the last two parts alone; the modules of our adapters go deeper.
        layer, found, rest = key.rpartition(f".{cls.prefix}")
        container, _, inner = rest.partition(".")
        if not found or not f"{inner}.".startswith(f"{adapter_name}."):
            return super()._remove_adapter_name_from_key(key, adapter_name)
        return f"{layer}{found}{container}{inner.removeprefix(adapter_name)}"

    @contextmanager
    def _enable_peft_forward_hooks(
        self, *args: Any, adapter_names: list[str] | None = None, **kwargs: Any
    ) -> Iterator:
        """PEFT calls it around each forward; without it `adapter_names` would be passed over in silence."""
        if adapter_names is not None:
            raise ValueError(
                f"{type(self).__name__} has no mixed batches: one batch runs with the same adapters. Leave "
                "`adapter_names` out, choose with `set_adapter`, and split the batch by adapter."
            )
        yield
