"""What tests of plans share."""

import pytest

from hf_transfer.runs.lifecycle import training


@pytest.fixture
def trained(monkeypatch):
    """Names of the trainings that really ran."""
    names, ordinary = [], training.trained

    def record(one, *rest):
        names.append(one.name)
        return ordinary(one, *rest)

    monkeypatch.setattr(training, "trained", record)
    return names
