"""Transfer probes say what a ranking of the present model would say, and change nothing of its training."""

import pytest
import torch
from transformers import ViTMAEConfig, ViTMAEForPreTraining, default_data_collator
from transformers.trainer_callback import EarlyStoppingCallback

from hf_transfer.ranking import rank_models
from hf_transfer.training.family_trainers import PretrainingTrainer
from hf_transfer.training.transfer_probes import ProbeTarget, TransferProbes
from tests import tiny
from tests.runs.folders import save_image_model
from tests.training.test_trainer import assert_same, config, state_of


@pytest.fixture(scope="module")
def rows():
    return tiny.digit_rows(0, 120)


def probes(rows, **keywords) -> TransferProbes:
    return TransferProbes({"digits": ProbeTarget(rows, default_data_collator)}, batch_size=32, **keywords)


def mae() -> ViTMAEForPreTraining:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    decoder = {f"decoder_{name}": value for name, value in sizes.items()}
    pixels = {"image_size": tiny.IMAGE_SIZE, "patch_size": 7, "num_channels": 1}
    torch.manual_seed(0)
    return ViTMAEForPreTraining(ViTMAEConfig(**sizes, **decoder, **pixels, mask_ratio=0.5))


def make(folder, rows, targets, **changes) -> PretrainingTrainer:
    args = config(folder, max_steps=4, eval_strategy="steps", eval_steps=2, **changes)
    trained = rows.remove_columns("labels")
    return PretrainingTrainer(mae(), args, train_dataset=trained, eval_dataset=trained, transfer_probes=targets)


def test_the_values_are_those_of_a_ranking(tmp_path, rows):
    save_image_model(tmp_path / "vit", tiny.vit())
    ranking = rank_models([str(tmp_path / "vit")], rows, score=("logme", "knn"))
    torch.manual_seed(0)
    model = tiny.vit()
    model.init_weights()
    model.load_state_dict(type(model).from_pretrained(tmp_path / "vit").state_dict())
    measured = probes(rows, scores=("logme", "knn")).measure(model)
    assert measured.keys() == {"digits_logme", "digits_knn"}
    (row,) = ranking.rows
    assert measured["digits_logme"] == pytest.approx(row.score, abs=1e-4)
    assert measured["digits_knn"] == pytest.approx(max(score.value for score in row.others["knn"].values()), abs=1e-6)


def test_a_masked_autoencoder_shows_the_whole_picture_and_everything_stays_as_it_was(rows):
    model = mae().train()
    model.vit.layers.eval()
    state = torch.random.get_rng_state()
    first, again = (probes(rows).measure(model) for _ in range(2))
    assert first == again, "no mask is drawn"
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.training and not model.vit.layers.training and model.config.mask_ratio == 0.5


def test_a_training_with_probes_is_the_training_without_and_logs_them(tmp_path, rows):
    watched = make(tmp_path / "with", rows, probes(rows))
    watched.train()
    plain = make(tmp_path / "without", rows, None)
    plain.train()
    assert_same(state_of(watched), state_of(plain), rtol=0, atol=0)
    logged = [entry["step"] for entry in watched.state.log_history if "eval_digits_linear_probe" in entry]
    assert logged == [2, 4]


def test_without_rows_to_evaluate_on_the_probes_are_the_evaluation(tmp_path, rows):
    args = config(tmp_path, max_steps=2)
    trained = rows.remove_columns("labels")
    trainer = PretrainingTrainer(mae(), args, train_dataset=trained, transfer_probes=probes(rows, scores=("knn",)))
    assert trainer.evaluate().keys() == {"eval_digits_knn"}


def test_a_probe_chooses_the_checkpoint_and_ends_the_training(tmp_path, rows, monkeypatch):
    values = iter([0.5, 0.3, 0.9, 0.2, 0.1])
    monkeypatch.setattr(TransferProbes, "measure", lambda self, model: {"digits_knn": next(values)})
    changes = {"save_strategy": "steps", "save_steps": 2, "load_best_model_at_end": True}
    trainer = make(tmp_path, rows, probes(rows, scores=("knn",)), metric_for_best_model="eval_digits_knn", **changes)
    trainer.args.max_steps = 20
    trainer.add_callback(EarlyStoppingCallback(2))
    trainer.train()
    assert trainer.state.global_step == 8, "two evaluations below the second one end it"
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4") and trainer.state.best_metric == 0.9


def test_what_cannot_be_measured_is_refused_before_training(tmp_path, rows):
    with pytest.raises(ValueError, match="at least one labelled data set"):
        TransferProbes({})
    with pytest.raises(ValueError, match="reads a head's probabilities"):
        probes(rows, scores=("leep",))
    with pytest.raises(ValueError, match="no label column"):
        ProbeTarget(rows.remove_columns("labels"), default_data_collator)
    one_class = tiny.with_column(rows, "labels", [3] * len(rows))
    with pytest.raises(ValueError, match="at least 2 classes"):
        probes(one_class)
    unfit = probes(tiny.text_rows())
    with pytest.raises(ValueError, match="cannot be run on"):
        make(tmp_path, rows, unfit)
