"""Check the trackers that `report_to` names, before any work: known to transformers, and installed.

What is logged reaches every tracker: the loss of the task and of each objective, unweighted, as `loss_<name>`, and the
score of the validator as `eval_<name>`.
"""

from __future__ import annotations

from collections.abc import Iterable

from transformers.integrations import get_available_reporting_integrations
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from hf_transfer.core.registry import nearest

NOT_ASKED_ABOUT = ("flyte", "azure_ml")
"""Trackers that transformers does not list although they are installed."""


def check_trackers(names: Iterable[str]) -> None:
    """Refuse a tracker that the training could not report to.

    Raises:
        ValueError: transformers does not know it, or it is not installed.
    """
    for name in names:
        if name not in list(INTEGRATION_TO_CALLBACK):  # a list, as what is given may be no name at all
            raise ValueError(
                f"`report_to` should be all, none, or among {sorted(INTEGRATION_TO_CALLBACK)}, got `{name}`."
                f"{nearest(name, INTEGRATION_TO_CALLBACK)}"
            )
        if name not in (*get_available_reporting_integrations(), *NOT_ASKED_ABOUT):
            raise ValueError(
                f"`report_to` names {name}, which is not installed: `pip install {name}`, or leave it out."
            )
