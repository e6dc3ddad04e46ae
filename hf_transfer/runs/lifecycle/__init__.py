"""The whole lifecycle on a user's own data: one plan, one command, one page that tells what came out."""

from hf_transfer.runs.lifecycle.lifecycle import Lifecycle
from hf_transfer.runs.lifecycle.outcome import Outcome

__all__ = ["Lifecycle", "Outcome"]
