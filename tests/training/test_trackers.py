"""What a tracker of `report_to` sees of a run from a YAML file; a tracker that cannot be reported to."""

import pytest
import yaml
from transformers import TrainerCallback
from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.training import trackers
from hf_transfer.training.trackers import check_trackers
from hf_transfer.training.transfer_config import TransferConfig
from tests import tiny
from tests.runs.folders import save_digits, save_image_model

RUN = {
    "model": "vit",
    "dataset": "digits",
    "target_dataset": "more_digits",
    "test_rows": 20,
    "objectives": {"cdan": {}, "mcc": {}},
    "validator": "entropy",
    "output_dir": "out",
    "report_to": ["trackio"],
    "max_steps": 2,
    "logging_steps": 1,
    "eval_strategy": "steps",
    "eval_steps": 1,
    "save_steps": 1,
    "per_device_train_batch_size": 8,
    "use_cpu": True,
    "diagnostics": False,
    "guard": False,
}


class Spy(TrainerCallback):
    """A tracker that keeps what it is given."""

    seen: list[dict] = []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.seen.append({**logs, "step": state.global_step})


@pytest.fixture
def spy(monkeypatch):
    monkeypatch.setitem(INTEGRATION_TO_CALLBACK, "trackio", Spy)
    monkeypatch.setattr(trackers, "get_available_reporting_integrations", lambda: ["trackio"])
    monkeypatch.setattr(Spy, "seen", [])
    return Spy


def test_terms_of_the_objectives_and_validators_reach_the_tracker_of_a_yaml(spy, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_image_model(tmp_path / "vit", tiny.vit(num_labels=10))
    save_digits(tmp_path / "digits", 0, 80)
    save_digits(tmp_path / "more_digits", 80, 160)
    (tmp_path / "run.yaml").write_text(yaml.safe_dump(RUN))
    run_adaptation(parse_arguments(["run.yaml"]))
    for step in (1, 2):
        logged = {name: value for one in spy.seen if one["step"] == step for name, value in one.items()}
        assert logged.keys() >= {"loss", "loss_task", "loss_cdan", "loss_mcc", "eval_entropy", "learning_rate"}
        # other values than numbers are dropped by trackers, with a warning
        assert all(isinstance(logged[name], float) for name in ("loss_task", "loss_cdan", "loss_mcc", "eval_entropy"))


def test_a_tracker_that_is_unknown_or_not_installed(tmp_path, monkeypatch):
    monkeypatch.setattr(trackers, "get_available_reporting_integrations", lambda: ["wandb"])
    check_trackers(["wandb", "azure_ml"])
    with pytest.raises(ValueError, match="`report_to` names trackio, which is not installed: `pip install trackio`"):
        TransferConfig(str(tmp_path), report_to="trackio", use_cpu=True)
    with pytest.raises(ValueError, match="got `tensorbord`. .*tensorboard"):
        TransferConfig(str(tmp_path), report_to=["tensorbord"], use_cpu=True)
