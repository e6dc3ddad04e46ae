"""To and from the Hugging Face Hub: atomic saves, model cards, push and pull."""

from hf_transfer.collision import refuse_if_broken
from hf_transfer.hub.atomic import atomic_folder, check_can_write
from hf_transfer.hub.card import (
    DatasetFact,
    MethodFact,
    MetricFact,
    PlotFact,
    RunFacts,
    TableFact,
    check_card,
    software_versions,
    write_card,
)
from hf_transfer.hub.errors import HubError, explain_hub_error
from hf_transfer.hub.pull import local_model_folder, pull_model
from hf_transfer.hub.push import check_can_push, check_model_folder, push_folder

refuse_if_broken()

__all__ = [
    "DatasetFact",
    "HubError",
    "MethodFact",
    "MetricFact",
    "PlotFact",
    "RunFacts",
    "TableFact",
    "atomic_folder",
    "check_can_push",
    "check_can_write",
    "check_card",
    "check_model_folder",
    "explain_hub_error",
    "local_model_folder",
    "pull_model",
    "push_folder",
    "software_versions",
    "write_card",
]
