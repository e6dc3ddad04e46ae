"""To and from the Hugging Face Hub: atomic saves, model cards, push and pull."""

from hf_transfer.collision import refuse_if_broken
from hf_transfer.hub.adapter import (
    adapter_class_names,
    adapter_outputs,
    complete_adapter,
    find_base,
    is_adapter_folder,
)
from hf_transfer.hub.atomic import atomic_folder, check_can_write
from hf_transfer.hub.card import (
    DatasetFact,
    MethodFact,
    MetricFact,
    PlotFact,
    RunFacts,
    TableFact,
    check_card,
    read_facts,
    software_versions,
    write_card,
)
from hf_transfer.hub.commit import commit_of, is_commit
from hf_transfer.hub.disk import removed_on_failure
from hf_transfer.hub.errors import HubError, explain_hub_error
from hf_transfer.hub.pull import local_model_folder, pull_model
from hf_transfer.hub.push import check_base_is_public, check_can_push, check_model_folder, push_command, push_folder

refuse_if_broken()

__all__ = [
    "DatasetFact",
    "HubError",
    "MethodFact",
    "MetricFact",
    "PlotFact",
    "RunFacts",
    "TableFact",
    "adapter_class_names",
    "adapter_outputs",
    "atomic_folder",
    "check_base_is_public",
    "check_can_push",
    "check_can_write",
    "check_card",
    "check_model_folder",
    "commit_of",
    "complete_adapter",
    "explain_hub_error",
    "find_base",
    "is_adapter_folder",
    "is_commit",
    "local_model_folder",
    "pull_model",
    "push_command",
    "push_folder",
    "read_facts",
    "removed_on_failure",
    "software_versions",
    "write_card",
]
