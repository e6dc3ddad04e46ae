import pytest
import torch
from transformers import default_data_collator

from hf_transfer.modeling.anatomy import layer_indices
from hf_transfer.task_adaptation.schedule import BackboneFreeze, LayerDecay, make_schedules
from hf_transfer.task_adaptation.ulmfit import ULMFiT
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny


def make(folder, rows, model, **changes):
    args = TransferConfig(
        output_dir=str(folder),
        per_device_train_batch_size=8,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **{"save_strategy": "no", "max_steps": 4, **changes},
    )
    return TransferTrainer(model, args, train_dataset=rows, data_collator=default_data_collator)


def moved_places(model, start) -> set[int]:
    """Places below the head (0 for the head) whose every parameter changed."""
    places = layer_indices(model)
    moved, still = set(), set()
    for name, parameter in model.named_parameters():
        (still if torch.equal(parameter, start[name]) else moved).add(places.get(name, 0))
    return moved - still


def start_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


@pytest.mark.parametrize("name", [*tiny.TEXT_MODELS, *tiny.IMAGE_MODELS, "lora"])
def test_the_layers_are_found_from_the_model(name):
    models = {**tiny.TEXT_MODELS, **tiny.IMAGE_MODELS, "lora": lambda: tiny.with_lora(tiny.vit())}
    model, deepest = models[name](), 2 if name == "lora" else 3
    places = layer_indices(model)
    assert set(places.values()) == set(range(1, deepest + 1))
    shallow = {name: place for name, place in places.items() if place == 1}
    assert not any("embedding" in name or ".embedder" in name or "wte" in name for name in shallow)
    numbered = [(place, part) for name, place in places.items() for part in name.split(".") if part.isdigit()]
    firsts = dict(reversed(numbered))
    assert firsts[1] == "1" and firsts[2] == "0", "the top layer is the last of the list"


def test_every_layer_has_its_rate(tmp_path, sentences):
    trainer = make(tmp_path, sentences, tiny.bert(), layer_learning_rate_decay=0.5, head_learning_rate_multiplier=3.0)
    groups = trainer.create_optimizer().param_groups
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    model = trainer.adapted_model
    assert rates.keys() == {id(p) for p in model.parameters()}
    assert rates[id(model.classifier.weight)] == pytest.approx(3e-2)
    assert rates[id(model.bert.pooler.dense.weight)] == pytest.approx(0.5e-2)
    for layer, factor in ((1, 0.5), (0, 0.25)):
        layer = model.bert.encoder.layer[layer]
        assert [rates[id(p)] for p in layer.parameters()] == pytest.approx([factor * 1e-2] * 16)
    assert rates[id(model.bert.embeddings.word_embeddings.weight)] == pytest.approx(0.125e-2)
    assert groups[0]["lr"] == pytest.approx(0.5e-2), "the logged rate is the top layer's"


@pytest.mark.parametrize("kind", ["linear", "cosine"])
def test_the_trainers_schedules_keep_the_ratio_of_the_rates(tmp_path, sentences, kind):
    trainer = make(
        tmp_path, sentences, tiny.bert(), layer_learning_rate_decay=0.5, lr_scheduler_type=kind, warmup_steps=1
    )
    seen = []

    class Spy(type(trainer.callback_handler.callbacks[0])):
        def on_step_begin(self, args, state, control, **kwargs):
            seen.append([group["lr"] for group in trainer.optimizer.param_groups])

    trainer.add_callback(Spy())
    trainer.train()
    initial = [group["initial_lr"] for group in trainer.optimizer.param_groups]
    assert len({round(rates[0], 12) for rates in seen}) > 1, "the rate changes"
    for rates in seen:
        assert [rate * initial[0] for rate in rates] == pytest.approx([rate * rates[0] for rate in initial])


@pytest.mark.parametrize(("model", "ratio"), [("resnet", 1.0), ("vit", 0.5)])
def test_a_frozen_backbone_does_not_move_until_it_thaws(tmp_path, digits, model, ratio):
    """Not by weight decay either, nor by the statistics of batch norms."""
    trainer = make(
        tmp_path,
        digits,
        tiny.IMAGE_MODELS[model](),
        backbone_freeze_ratio=ratio,
        weight_decay=0.5,
        save_steps=2,
        save_strategy="steps",
        save_total_limit=None,
    )
    start = {name: value.clone() for name, value in trainer.adapted_model.state_dict().items()}
    trainer.train()
    half = type(trainer.adapted_model).from_pretrained(tmp_path / "checkpoint-2").state_dict()
    head = {name for name in start if name.startswith("classifier")}
    assert all(not torch.equal(half[name], start[name]) for name in head)
    assert all(torch.equal(half[name], start[name]) for name in start.keys() - head)
    end = trainer.adapted_model.state_dict()
    assert all(torch.equal(end[name], start[name]) for name in start.keys() - head) == (ratio == 1.0)
    assert all(p.requires_grad for p in trainer.adapted_model.parameters())


def test_dropped_gradients_are_skipped_gradients(tmp_path, sentences):
    """What several processes do gives the same weights as leaving the layers out of the backward pass."""
    ends = []
    for skips in (True, False):
        torch.manual_seed(0)
        trainer = make(
            tmp_path,
            sentences,
            tiny.bert(),
            backbone_freeze_ratio=0.5,
            weight_decay=0.1,
            gradient_accumulation_steps=2,
        )
        trainer.layer_freezing.skips_backward = skips
        trainer.train()
        ends.append((trainer.adapted_model.state_dict(), [log.get("grad_norm") for log in trainer.state.log_history]))
    assert ends[0][1] == ends[1][1]
    for name, value in ends[0][0].items():
        assert torch.equal(value, ends[1][0][name]), name


def test_schedules_resume_exactly(tmp_path, sentences):
    """From a step at which some layers rest."""
    settings = {"schedules": {"ulmfit": {"unfreeze_until": 0.75}}, "save_strategy": "steps", "save_steps": 2}
    torch.manual_seed(0)
    model = tiny.bert()
    start = start_of(model)
    straight = make(tmp_path, sentences, model, **settings)
    straight.train()
    assert 0 in moved_places(model, start)
    torch.manual_seed(1)
    resumed = make(tmp_path, sentences, tiny.bert(), **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert isinstance(resumed.schedules[0], ULMFiT)
    for name, value in model.state_dict().items():
        assert torch.equal(value, resumed.adapted_model.state_dict()[name]), name
    rates = [
        [log["learning_rate"] for log in t.state.log_history if "learning_rate" in log] for t in (straight, resumed)
    ]
    assert rates[0] == rates[1]


def test_the_plain_ones():
    assert [LayerDecay(0.5).rate(place) for place in range(3)] == [1.0, 0.5, 0.25]
    frozen = BackboneFreeze(0.5)
    assert frozen.is_frozen(1, 3, 0.49) and not frozen.is_frozen(3, 3, 0.5)


def test_wrong_settings_are_refused(tmp_path):
    for keywords, message in [
        ({"layer_learning_rate_decay": 0.0}, "`layer_learning_rate_decay` should be positive"),
        ({"backbone_freeze_ratio": 1.5}, r"`backbone_freeze_ratio` should be in \[0, 1\]"),
        (
            {"schedules": {"ulmfitt": {}}},
            r"unknown schedule `ulmfitt`, accepted: \['bit_hyper_rule', 'sequential_unfreezing', 'ulmfit'\]",
        ),
        ({"schedules": 3}, "`schedules` should map names to keywords"),
        ({"task_loss_weight": -1.0}, "`task_loss_weight` should be at least 0"),
    ]:
        with pytest.raises(ValueError, match=message):
            TransferConfig(output_dir=str(tmp_path), use_cpu=True, **keywords)
    with pytest.raises(TypeError, match="schedule `ulmfit` has no keyword `ration`"):
        make_schedules({"ulmfit": {"ration": 3}})
    with pytest.raises(ValueError, match="only one schedule may set the rate over time"):
        make_schedules({"ulmfit": {}, "mine": ULMFiT()})
