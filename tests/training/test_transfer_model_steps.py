"""What one forward of a TransferModel makes of phases, second copies, several processes and frozen modules."""

import pytest
import torch
import torch.nn.functional as F
from transformers import BartForConditionalGeneration, BertForMaskedLM, GPT2LMHeadModel
from transformers.models.bart import BartConfig

from hf_transfer.core.objective import IGNORED_LABEL, AlternatingObjective, Phase
from hf_transfer.core.supervision import FromModel
from hf_transfer.training import gathered_view
from hf_transfer.training.transfer_model import OBJECTIVES_FILE, TransferModel, alternates, label_spaces
from tests import tiny
from tests.training.test_transfer_model import Probe


class Tug(AlternatingObjective):
    paper = "none"


@pytest.fixture
def batch(sentences):
    return tiny.batch_of(sentences, 6)


@pytest.fixture
def tug():
    return Tug(weight=5.0)


# Phases.


def test_the_warm_up_and_the_weight_leave_an_alternating_objective_alone(batch, tug):
    model = TransferModel(tiny.bert(), {"tug": tug, "one": Probe(weight=2.0)})
    tug.phase = Phase("pull", lambda model: [], lambda view: view.features.square().mean(), joins_task=True)
    model.objective_warmup, model.progress = 0.5, 0.25
    output = model(**batch)
    assert set(output.losses) == {"task", "tug_pull", "one"}
    losses = output.losses
    torch.testing.assert_close(output.loss, losses["task"] + losses["tug_pull"] + 0.5 * 2.0 * losses["one"])


def test_a_phase_that_the_task_does_not_join_is_the_whole_loss(batch, tug):
    model = TransferModel(tiny.bert(), {"tug": tug, "one": Probe()})
    seen = []
    tug.phase = Phase("push", lambda model: [], lambda view: seen.append(view) or view.features.square().mean())
    output = model(**batch)
    assert set(output.losses) == {"tug_push"} and not output.losses["tug_push"].requires_grad
    torch.testing.assert_close(output.loss, seen[0].features.square().mean())
    assert seen[0].features.shape == (6, 16) and torch.equal(seen[0].labels, batch["labels"])
    assert model.objectives["one"].seen is None
    evaluated = model.eval()(**batch)
    torch.testing.assert_close(evaluated.loss, F.cross_entropy(evaluated.logits, batch["labels"]))


def test_a_phase_without_the_model_runs_none(batch, tug):
    model = TransferModel(tiny.bert(), {"tug": tug})
    model.progress = 0.25
    seen, calls = [], []
    model.model.register_forward_pre_hook(lambda *_: calls.append(1))

    def loss(view):
        seen.append(view)
        return view.inputs["input_ids"].float().mean()

    tug.phase = Phase("push", lambda model: [], loss, runs_model=False)
    output = model(**batch, domain=torch.tensor([0, 0, 0, 1, 1, 1]))
    assert calls == [] and output.loss == batch["input_ids"].float().mean()
    (view,) = seen
    assert view.features is None and view.logits is None
    assert (view.progress, view.model) == (0.25, model.model)
    assert view.domain.tolist() == [0, 0, 0, 1, 1, 1] and torch.equal(view.labels, batch["labels"])


def test_what_can_be_asked_of_objectives_by_name():
    assert not alternates(None) and not alternates({"mcc": {}}) and alternates({"mcc": {}, "adda": {}})
    assert label_spaces(None) == set() and label_spaces({"mcc": {}, "pada": {}}) == {"closed", "partial"}


# Labels.


def test_labels_of_the_whole_batch_divide_the_summed_loss(batch):
    model = TransferModel(tiny.bert())
    batch["labels"][1] = IGNORED_LABEL
    plain = model(**batch).loss
    torch.testing.assert_close(model(**batch, items_per_batch=torch.tensor(10.0)).loss, plain * 5 / 10)
    batch["labels"][:] = IGNORED_LABEL
    assert model(**batch, items_per_batch=torch.tensor(0.0)).loss == 0


def test_only_models_that_predict_the_next_token_have_no_use_for_the_first_label():
    labels = torch.tensor([[3, 4, IGNORED_LABEL], [5, 6, 7]])
    sizes = {"d_model": 8, "encoder_layers": 1, "decoder_layers": 1, "max_position_embeddings": 16, "vocab_size": 50}
    heads = {"encoder_attention_heads": 1, "decoder_attention_heads": 1, "encoder_ffn_dim": 8, "decoder_ffn_dim": 8}
    bart = BartForConditionalGeneration(BartConfig(**sizes, **heads))
    for inner, count in (
        (GPT2LMHeadModel(tiny.gpt2().config), 3),
        (BertForMaskedLM(tiny.bert().config), 5),
        (bart, 5),
    ):
        assert TransferModel(inner, task_loss=FromModel()).loss_items.count({"labels": labels}) == count
    other = GPT2LMHeadModel(tiny.gpt2().config)
    other.loss_type = "ForMaskedLM"
    assert TransferModel(other, task_loss=FromModel()).loss_items.count({"labels": labels}) == 5
    assert TransferModel(tiny.gpt2()).loss_items.count({"labels": labels[:, 0]}) == 2


def test_class_numbers_of_any_integer_type(batch):
    model = TransferModel(tiny.bert())
    expected = model(**batch).loss
    assert model(**{**batch, "labels": batch["labels"].to(torch.uint8)}).loss == expected


def test_the_loss_of_the_model_itself_beside_objectives(batch):
    inner = tiny.bert()
    output = TransferModel(inner, {"one": Probe(weight=2.0)}, task_loss=FromModel())(**batch)
    torch.testing.assert_close(output.losses["task"], inner(**batch).loss.detach())
    torch.testing.assert_close(output.loss, output.losses["task"] + 2 * output.losses["one"])


def test_objectives_are_held_to_the_problem_type_where_labels_are_read():
    with pytest.raises(ValueError, match="the objective `one` is defined for single_label_classification"):
        TransferModel(tiny.bert(num_labels=1), {"one": Probe()})
    TransferModel(tiny.bert(num_labels=1), {"one": Probe()}, task_loss=FromModel())
    model = TransferModel(tiny.bert(), {"one": Probe()})
    with pytest.raises(ValueError, match="and this is multi_label_classification"):
        model.settle_problem_type(torch.ones(4, 3))
    assert (
        model.settle_problem_type(torch.tensor([0, 2])) == model.config.problem_type == "single_label_classification"
    )


def test_label_smoothing_is_of_classes():
    with pytest.raises(ValueError, match="`label_smoothing_factor` is defined for single_label_classification"):
        TransferModel(tiny.bert(), label_smoothing=0.1).settle_problem_type(torch.ones(4, 3))
    kinds = [TransferModel(tiny.bert()).settle_problem_type(torch.ones(4, 3))]
    kinds.append(TransferModel(tiny.bert(), label_smoothing=0.1).settle_problem_type(torch.tensor([0, 1])))
    assert kinds == ["multi_label_classification", "single_label_classification"]


# Second copies, processes, frozen modules.


def test_copies_whose_inputs_alone_are_read_do_not_run(digits):
    class Reads(Probe):
        runs_views = False

    batch = tiny.batch_of(digits, 4)
    flipped = batch["pixel_values"].flip(-1)
    model = TransferModel(tiny.vit(), {"one": Reads("views")})
    model.progress = 0.5
    rows = []
    model.model.register_forward_pre_hook(lambda *given: rows.append(len(given[2]["pixel_values"])), with_kwargs=True)
    model(**batch, domain=torch.tensor([0, 0, 1, 1]), view_pixel_values=flipped)
    view = model.objectives["one"].seen
    assert (
        rows == [4]
        and view.features.shape == (4, 16)
        and torch.equal(view.inputs["pixel_values"], batch["pixel_values"])
    )
    assert view.views[0].features is None and view.views[0].logits is None
    assert torch.equal(view.views[0].inputs["pixel_values"], flipped)
    assert view.views[0].domain.tolist() == [0, 0, 1, 1] and torch.equal(view.views[0].labels, batch["labels"])
    assert view.views[0].progress == 0.5


def test_copies_carry_the_domain_of_their_rows(digits):
    batch = tiny.batch_of(digits, 4)
    model = TransferModel(tiny.vit(problem_type="single_label_classification"), {"one": Probe("views")})
    model.progress = 0.5
    model(**batch, domain=torch.tensor([0, 0, 1, 1]), view_pixel_values=batch["pixel_values"].flip(-1))
    view = model.objectives["one"].seen
    for one in (view, *view.views):
        assert one.domain.tolist() == [0, 0, 1, 1] and one.progress == 0.5 and one.model is model.model
        assert one.problem_type == "single_label_classification"


def test_what_is_kept_beside_the_model_is_told_of_the_domains(digits):
    class State(torch.nn.Module):
        needs = frozenset()
        told = []

        def begin(self, domain):
            self.told.append(None if domain is None else domain.tolist())

    batch = tiny.batch_of(digits, 2)
    copies = {"view_pixel_values": batch["pixel_values"]}
    model = TransferModel(tiny.vit(), {"one": Probe("views")})
    model.sidecars["state"] = State()
    domain = torch.tensor([0, 1])
    model(**batch, domain=domain, **copies)
    model(**batch, **copies)
    assert State.told == [[0, 1, 0, 1], None], "in training it stays for the backward pass"
    model.eval()(**batch, domain=domain)
    assert State.told[2:] == [[0, 1], None], "and not after an evaluation"


def test_a_global_batch_holds_the_rows_of_all_processes(batch, monkeypatch):
    """The second process's rows are those of the first plus 100, or plus 1 where no gradient flows."""
    monkeypatch.setattr(gathered_view, "has_several", lambda: True)
    monkeypatch.setattr(
        gathered_view,
        "from_all_uneven",
        lambda rows: torch.cat([rows, rows + (100 if rows.is_floating_point() else 1)]),
    )
    model = TransferModel(tiny.bert(), {"all": Probe("global_batch", "teacher"), "own": Probe()})
    model.progress = 0.5
    output = model(**batch, domain=torch.tensor([0, 0, 0, 1, 1, 1]))
    every, own = (model.objectives[name].seen for name in ("all", "own"))
    assert own.features.shape == (6, 16)
    for first, second in ((every, own), (every.teacher, own.teacher)):
        torch.testing.assert_close(first.features, torch.cat([second.features, second.features + 100]))
        torch.testing.assert_close(first.logits, torch.cat([second.logits, second.logits + 100]))
        assert first.labels.tolist() == [*second.labels.tolist(), *(second.labels + 1).tolist()]
        assert first.domain.tolist() == [0, 0, 0, 1, 1, 1, 1, 1, 1, 2, 2, 2] and first.progress == 0.5
    assert every.model is model.model and every.problem_type == own.problem_type and every.views == ()
    assert every.features.requires_grad and output.losses["all"] == pytest.approx(
        output.losses["own"].item() + 50, abs=1e-4
    )


def test_modules_that_rest_stay_in_evaluation_mode():
    model = TransferModel(tiny.bert())
    first, second = model.model.bert.encoder.layer
    model.frozen_modules = [first]
    assert model.train() is model
    assert not first.training and second.training
    model.frozen_modules = []
    assert model.train().model.bert.encoder.layer[0].training and not model.train(False).training


def test_only_the_main_process_writes_the_state_of_the_objectives(tmp_path):
    model = TransferModel(tiny.vit(), {"one": Probe("teacher")})
    model.save_pretrained(tmp_path, is_main_process=False)
    assert not (tmp_path / OBJECTIVES_FILE).exists()
