"""Tells transformers about the models of several models; called once transformers is imported beside `hf_transfer`."""

from transformers import AutoConfig, AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_transfer.multi_model.ensemble import Ensemble, EnsembleConfig
from hf_transfer.multi_model.hub_pathway import HubPathway, HubPathwayConfig
from hf_transfer.multi_model.zoo_tuned import ZooTuned, ZooTunedConfig

COMPOSITES = {EnsembleConfig: Ensemble, HubPathwayConfig: HubPathway, ZooTunedConfig: ZooTuned}
AUTO_CLASSES = (AutoModelForImageClassification, AutoModelForSequenceClassification)


def register() -> None:
    """Register every composite for images and for texts; calling it again changes nothing."""
    for config, model in COMPOSITES.items():
        AutoConfig.register(config.model_type, config, exist_ok=True)
        for auto_class in AUTO_CLASSES:
            auto_class.register(config, model, exist_ok=True)
