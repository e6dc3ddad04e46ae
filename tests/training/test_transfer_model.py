import copy
import math
import weakref

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from transformers import BertForMaskedLM, BertModel

from hf_transfer.core.objective import IGNORED_LABEL, Objective, View
from hf_transfer.core.supervision import FromModel
from hf_transfer.domain_adaptation.cdan import CDAN
from hf_transfer.domain_adaptation.mcc import MCC
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.training.transfer_model import TransferModel, make_objectives, objective_class
from tests import tiny


class Probe(Objective):
    """Keeps the view it was given; its loss is the mean feature."""

    paper = "none"

    def __init__(self, *needs: str, weight: float = 1.0):
        super().__init__(weight)
        self.needs = frozenset(needs)
        self.seen: View | None = None

    def forward(self, view):
        self.seen = view
        return view.features.mean()


@pytest.fixture
def batch(sentences):
    return tiny.batch_of(sentences, 6)


@pytest.fixture
def two_domain_batch(digit_domains):
    rows = digit_domains.select([0, 1, 2, 3, 40, 41, 42, 43])
    return tiny.batch_of(rows, 8)


def gradients(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


# The task loss.


def test_the_task_loss_is_the_cross_entropy_of_the_labelled_rows(batch):
    torch.manual_seed(0)
    inner = tiny.bert()
    model = TransferModel(inner)
    batch["labels"][[1, 4]] = IGNORED_LABEL
    known = [0, 2, 3, 5]
    output = model(**batch)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    log_p = inner(**inputs).logits.log_softmax(dim=1)
    expected = -sum(log_p[row, batch["labels"][row]] for row in known) / len(known)
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(output.losses["task"], expected)


def test_unlabelled_rows_never_influence_the_task_loss(two_domain_batch):
    """The target's pixels are replaced by noise; loss and gradients stay the same to the bit."""
    torch.manual_seed(0)
    model = TransferModel(tiny.vit())
    changed = dict(two_domain_batch)
    changed["pixel_values"] = changed["pixel_values"].clone()
    changed["pixel_values"][4:] = torch.randn(4, 1, 14, 14) * 100
    results = []
    for inputs in (two_domain_batch, changed):
        model.zero_grad()
        loss = model(**inputs).loss
        loss.backward()
        results.append((loss.item(), gradients(model)))
    assert results[0][0] == results[1][0]
    for name, gradient in results[0][1].items():
        torch.testing.assert_close(gradient, results[1][1][name], rtol=0, atol=0)


@pytest.mark.parametrize(
    "num_labels, problem_type, dtype",
    [
        (1, None, torch.float32),
        (1, None, torch.int64),
        (1, "regression", torch.int64),
        (2, "regression", torch.float32),
    ],
)
def test_regression_is_the_mean_squared_error_whatever_the_type_of_the_labels(batch, num_labels, problem_type, dtype):
    """Star ratings are often stored as integers; cross entropy over one class would be 0 for every one of them."""
    torch.manual_seed(0)
    inner = tiny.bert(num_labels=num_labels, problem_type=problem_type)
    labels = torch.tensor([1, 2, 3, 4, 5, 5]).to(dtype)
    if num_labels > 1:
        labels = torch.stack([labels, -labels], dim=1)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    output = TransferModel(inner)(**inputs, labels=labels)
    logits = inner(**inputs).logits
    expected = ((logits.squeeze(1) - labels) ** 2).mean()
    torch.testing.assert_close(output.loss, expected)
    torch.testing.assert_close(inner(**inputs, labels=labels.float()).loss, expected)


def test_regression_ignores_rows_without_a_label(batch):
    torch.manual_seed(0)
    model = TransferModel(tiny.bert(num_labels=1))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = torch.tensor([1.0, IGNORED_LABEL, 3.0, IGNORED_LABEL, IGNORED_LABEL, 0.5])
    output = model(**inputs, labels=labels)
    expected = sum((output.logits[row, 0] - labels[row]) ** 2 for row in (0, 2, 5)) / 3
    torch.testing.assert_close(output.loss, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.int64])
def test_multi_label_is_the_binary_cross_entropy_of_the_labelled_rows(batch, dtype):
    torch.manual_seed(0)
    model = TransferModel(tiny.bert(num_labels=3, problem_type="multi_label_classification"))
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    labels = torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0], [1, 0, 0], [0, 0, 1]]).to(dtype)
    labels[4] = IGNORED_LABEL
    output = model(**inputs, labels=labels)
    p = output.logits.sigmoid()
    known = [0, 1, 2, 3, 5]
    expected = -sum((p[r, c] if labels[r, c] == 1 else 1 - p[r, c]).log() for r in known for c in range(3)) / 15
    torch.testing.assert_close(output.loss, expected)


def test_label_smoothing_spreads_the_target_distribution(batch):
    torch.manual_seed(0)
    model = TransferModel(tiny.bert(), label_smoothing=0.3).train()
    batch["labels"][0] = IGNORED_LABEL
    output = model(**batch)
    log_p = output.logits.log_softmax(dim=1)
    rows = [-(0.7 * log_p[row, batch["labels"][row]] + 0.1 * log_p[row].sum()) for row in range(1, 6)]
    torch.testing.assert_close(output.loss, sum(rows) / 5)
    output = model.eval()(**batch)  # what is measured is the plain loss, as of a saved model
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, batch["labels"]))


@pytest.mark.parametrize("num_labels", [1, 3])
def test_a_batch_without_any_label_gives_a_zero_with_a_graph(batch, num_labels):
    model = TransferModel(tiny.bert(num_labels=num_labels))
    batch["labels"] = torch.full((6,), IGNORED_LABEL, dtype=torch.int64 if num_labels > 1 else torch.float32)
    loss = model(**batch).loss
    loss.backward()
    assert loss.item() == 0
    assert all(gradient.abs().max() == 0 for gradient in gradients(model).values())


def test_a_batch_without_labels_and_objectives_has_no_loss(batch):
    batch.pop("labels")
    model = TransferModel(tiny.bert())
    assert model(**batch).loss is None
    assert model.eval()(**batch).loss is None


# Objectives.


def test_the_loss_is_the_task_loss_plus_weighted_objectives(batch):
    torch.manual_seed(0)
    model = TransferModel(tiny.bert(), {"one": Probe(weight=0.5), "two": Probe(weight=3.0)})
    output = model(**batch)
    assert set(output.losses) == {"task", "one", "two"}
    assert not any(value.requires_grad for value in output.losses.values())
    features = model.objectives["one"].seen.features.mean()
    torch.testing.assert_close(output.loss, output.losses["task"] + 3.5 * features)


@pytest.mark.parametrize(
    "warmup, progress, share",
    [(0.0, 0.0, 1.0), (0.5, 0.0, 0.0), (0.5, 0.125, 0.25), (0.5, 0.5, 1.0), (0.5, 0.75, 1.0), (1.0, 0.75, 0.75)],
)
def test_the_weights_of_the_objectives_grow_linearly_over_the_warm_up(batch, warmup, progress, share):
    """The weight of the task loss does not."""
    torch.manual_seed(0)
    model = TransferModel(tiny.bert(), {"one": Probe(weight=0.5), "two": Probe(weight=3.0)})
    model.objective_warmup, model.progress, model.task_loss_weight = warmup, progress, 0.7
    output = model(**batch)
    weighted = 0.5 * output.losses["one"] + 3.0 * output.losses["two"]
    torch.testing.assert_close(output.loss, 0.7 * output.losses["task"] + share * weighted)


def test_objectives_alone_train_without_labels(batch):
    batch.pop("labels")
    output = TransferModel(tiny.bert(), {"one": Probe(weight=2.0)})(**batch)
    torch.testing.assert_close(output.loss, 2 * output.losses["one"])
    assert set(output.losses) == {"one"}


def test_evaluation_runs_no_objective(batch):
    model = TransferModel(tiny.bert(), {"one": Probe("hidden_states", "teacher")}).eval()
    output = model(**batch)
    assert model.objectives["one"].seen is None
    torch.testing.assert_close(output.loss, F.cross_entropy(output.logits, batch["labels"]))
    assert output.losses is None and output.features is None
    model.returns_features = True
    assert model(**batch).features.shape == (6, 16)


def test_what_nobody_needs_is_not_computed(batch):
    model = TransferModel(tiny.bert(), {"one": Probe()})
    model(**batch)
    seen = model.objectives["one"].seen
    assert seen.hidden_states is None and seen.teacher is None and seen.views == ()
    assert not hasattr(model, "teacher")
    assert seen.model is model.model
    assert set(seen.inputs) == {"input_ids", "attention_mask"}


def test_hidden_states_for_those_who_need_them(batch):
    model = TransferModel(tiny.bert(), {"one": Probe("hidden_states")})
    model(**batch)
    hidden = model.objectives["one"].seen.hidden_states
    assert [tuple(state.shape) for state in hidden] == [(6, 20, 16)] * 3


def test_the_teacher_is_the_frozen_starting_model(batch):
    torch.manual_seed(0)
    inner = tiny.bert(hidden_dropout_prob=0.5)
    model = TransferModel(inner, {"one": Probe("teacher")}).train()
    start = {name: value.clone() for name, value in inner.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    views = []
    for _ in range(2):
        model(**batch).loss.backward()
        optimizer.step()
        views.append(model.objectives["one"].seen.teacher)
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    reference = tiny.bert().eval()
    reference.load_state_dict(start)
    torch.testing.assert_close(views[1].logits, reference(**inputs).logits)
    torch.testing.assert_close(views[0].features, views[1].features, rtol=0, atol=0)
    assert not views[0].logits.requires_grad
    assert not torch.equal(start["classifier.weight"], inner.classifier.weight)
    assert views[0].labels is not None


def test_two_augmented_copies_run_in_one_forward(digits):
    torch.manual_seed(0)
    batch = tiny.batch_of(digits, 4)
    flipped = batch["pixel_values"].flip(-1)
    inner = tiny.vit()
    model = TransferModel(inner, {"one": Probe("views", "hidden_states", "teacher")})
    calls = []
    inner.register_forward_pre_hook(lambda *_: calls.append(1))
    output = model(**batch, view_pixel_values=flipped)
    seen = model.objectives["one"].seen
    assert len(calls) == 1
    for view, pixels in ((seen, batch["pixel_values"]), (seen.views[0], flipped)):
        torch.testing.assert_close(view.logits, inner(pixel_values=pixels).logits)
        assert view.features.shape == (4, 16)
        torch.testing.assert_close(view.inputs["pixel_values"], pixels)
        assert torch.equal(view.labels, batch["labels"])
        assert len(view.hidden_states[0]) == 4
        torch.testing.assert_close(view.teacher.logits, view.logits)
    torch.testing.assert_close(output.losses["task"], F.cross_entropy(seen.logits, batch["labels"]))
    assert output.logits.shape == (4, 10)


def test_copies_are_ignored_in_evaluation_and_by_those_who_do_not_need_them(digits):
    batch = tiny.batch_of(digits, 4)
    model = TransferModel(tiny.vit(), {"one": Probe()})
    assert model(**batch, view_pixel_values=batch["pixel_values"]).logits.shape == (4, 10)
    assert model.eval()(**batch, view_pixel_values=batch["pixel_values"]).logits.shape == (4, 10)


def test_missing_copies_are_named(digits):
    model = TransferModel(tiny.vit(), {"one": Probe("views")})
    with pytest.raises(ValueError, match="an objective needs `views`: use a collator that adds keys"):
        model(**tiny.batch_of(digits, 4))


def test_objectives_run_in_float32_under_autocast(digit_domains):
    class Types(Probe):
        def forward(self, view):
            self.product = (view.features @ view.features.T).dtype
            return super().forward(view)

    batch = tiny.batch_of(digit_domains, 8)
    model = TransferModel(tiny.vit(), {"types": Types("hidden_states", "teacher")})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = model(**batch)
        assert (torch.ones(2, 2) @ torch.ones(2, 2)).dtype == torch.bfloat16
    seen = model.objectives["types"].seen
    assert model.objectives["types"].product == torch.float32
    for view in (seen, seen.teacher):
        assert view.features.dtype == view.logits.dtype == torch.float32
        assert {state.dtype for state in view.hidden_states} == {torch.float32}
    assert output.loss.dtype == torch.float32
    assert math.isfinite(output.loss.item())


def test_every_objective_hears_of_the_step():
    class Counts(Probe):
        def after_step(self, model):
            self.told = (model, torch.is_grad_enabled())

    model = TransferModel(tiny.bert(), {"one": Counts()})
    model.after_step()
    assert model.objectives["one"].told == (model.model, False)


def test_target_labels_that_are_hidden_change_nothing(two_domain_batch):
    """CDAN, MCC and DANN together read no label of a target row."""
    torch.manual_seed(0)
    spec = {"cdan": {"hidden_size": 8}, "mcc": {}, "dann": {"hidden_size": 8}}
    model = TransferModel(tiny.vit(), make_objectives(spec)).train()
    assert (two_domain_batch["labels"][4:] == IGNORED_LABEL).all()
    first = model(**two_domain_batch)
    parts = {name: value.item() for name, value in first.losses.items()}
    for label in range(3):
        poisoned = dict(two_domain_batch, labels=two_domain_batch["labels"].clone())
        poisoned["labels"][4:] = label
        again = {name: value.item() for name, value in model(**poisoned).losses.items() if name != "task"}
        assert again == {name: value for name, value in parts.items() if name != "task"}


# Building.


def test_build_gets_the_width_and_the_classes():
    class Built(Probe):
        def build(self, context):
            self.told = (context.model, context.feature_dim, context.num_labels)

    inner = tiny.vit()
    assert TransferModel(inner, {"one": Built()}).objectives["one"].told == (inner, 16, 10)


def test_names_and_keywords_make_objectives():
    ready = Probe()
    made = make_objectives({"cdan": None, "mcc": {"temperature": 1.5}, "mine": ready})
    assert [type(one) for one in made.values()] == [CDAN, MCC, Probe]
    assert made["mcc"].temperature == 1.5 and made["mine"] is ready
    assert make_objectives(None) == {}


def test_an_unknown_objective_is_named_with_those_there_are():
    with pytest.raises(ValueError, match=r"unknown objective `cdna`, accepted: \[.*'cdan'"):
        make_objectives({"cdna": {}})
    with pytest.raises(ValueError, match="unknown objective `nothing`"):
        objective_class("nothing")


def test_an_unknown_keyword_is_named_with_its_objective():
    with pytest.raises(TypeError, match=r"objective `mcc` has no keyword `temprature`"):
        make_objectives({"mcc": {"temprature": 1.5}})


def test_keywords_that_are_no_mapping_are_refused():
    with pytest.raises(TypeError, match=r"objective `mcc`: .*mapping"):
        make_objectives({"mcc": 2.5})


def test_a_bad_value_is_refused():
    with pytest.raises(ValueError, match="`temperature` should be positive"):
        make_objectives({"mcc": {"temperature": -1}})


def test_an_objective_may_not_take_the_name_of_the_task_loss():
    with pytest.raises(ValueError, match="no objective may be called `task`"):
        TransferModel(tiny.bert(), {"task": Probe()})


def test_an_unknown_need_is_refused():
    with pytest.raises(ValueError, match="objective `one` needs"):
        TransferModel(tiny.bert(), {"one": Probe("everything")})


def test_an_objective_that_reads_what_the_model_has_not_is_refused():
    message = r"\['dann'\] need features, and the readout `Nothing` of a BertForMaskedLM gives"
    with pytest.raises(ValueError, match=message):
        TransferModel(BertForMaskedLM(tiny.bert().config), make_objectives({"dann": {}}))
    with pytest.raises(ValueError, match=r"\['mcc'\] need logits, and the readout `Pooled` of a BertModel gives none"):
        TransferModel(tiny.bert().bert, make_objectives({"mcc": {}}))


def test_a_backbone_with_nothing_to_train_on_is_refused():
    with pytest.raises(ValueError, match="BertModel has no head"):
        TransferModel(tiny.bert().bert)


# The loss of the model itself.


def test_supervision_by_the_model_takes_its_loss(batch):
    torch.manual_seed(0)
    inner = BertForMaskedLM(tiny.bert().config)
    model = TransferModel(inner, task_loss=FromModel())
    batch["labels"] = torch.where(torch.rand(6, 20) < 0.3, batch["input_ids"], IGNORED_LABEL)
    output = model(**batch)
    torch.testing.assert_close(output.loss, inner(**batch).loss)
    assert output.logits.shape == (6, 20, 200)


@pytest.mark.parametrize("training", [True, False])
def test_a_model_that_returns_no_loss_has_none(batch, training):
    batch.pop("labels")
    model = TransferModel(BertForMaskedLM(tiny.bert().config), task_loss=FromModel()).train(training)
    assert model(**batch).loss is None


# Folders.


def test_hidden_states_of_a_low_precision_model_are_float32(batch):
    model = TransferModel(tiny.bert().bfloat16(), {"one": Probe("hidden_states", "teacher")})
    model(**batch)
    seen = model.objectives["one"].seen
    for view in (seen, seen.teacher):
        assert {state.dtype for state in (view.features, view.logits, *view.hidden_states)} == {torch.float32}


# What the Trainer asks for.


def test_the_trainer_finds_what_it_asks_a_model_for():
    inner = tiny.vit()
    model = TransferModel(inner)
    assert model.config is inner.config
    assert model.device == torch.device("cpu")
    assert model.main_input_name == "pixel_values"
    assert TransferModel(tiny.with_lora(tiny.bert())).main_input_name == "input_ids"


def test_the_teacher_stays_in_evaluation_mode():
    model = TransferModel(tiny.bert(), {"one": Probe("teacher")}).train()
    assert model.model.training and not model.teacher.training
    assert unwrap_peft(model.teacher.module) is not model.model


# The model outlives its TransferModels.


def test_a_model_serves_many_transfer_models_and_keeps_no_hook(batch):
    inner = tiny.bert(num_labels=3)
    for _ in range(3):
        model = TransferModel(inner, make_objectives({"bi_tuning": {}, "delta": {}}))
        model.eval()(**batch).loss.backward()
    assert not any(module._forward_hooks for module in inner.modules())
    inner(input_ids=batch["input_ids"])
    TransferModel(inner, make_objectives({"mean_teacher": {}}))  # it copies the model


def test_the_graph_of_the_last_forward_is_freed(batch):
    inner = tiny.bert(num_labels=3)
    model = TransferModel(inner)
    pooled = []
    inner.bert.pooler.register_forward_hook(lambda _, inputs, output: pooled.append(weakref.ref(output)))
    loss = model(**batch).loss
    logits = inner(input_ids=batch["input_ids"]).logits  # by hand, without the TransferModel
    assert len(pooled) == 2
    del loss, logits
    assert [one() for one in pooled] == [None, None]


def test_a_copy_of_a_transfer_model_reads_its_own_head(batch):
    model = TransferModel(tiny.bert(num_labels=3), {"one": Probe("teacher")})
    model(**batch)
    model.objectives["one"].seen = None
    copied = copy.deepcopy(model)
    with torch.no_grad():
        copied.model.classifier.weight.zero_()
        copied.model.bert.pooler.dense.weight.zero_()
        copied.model.bert.pooler.dense.bias.fill_(0.5)
    copied(**batch)
    seen = copied.objectives["one"].seen
    torch.testing.assert_close(seen.features, torch.full_like(seen.features, 0.5).tanh())
    assert seen.logits.detach().std(dim=0).max() < 1e-6


def test_labels_that_a_model_reads_by_itself_are_not_smoothed():
    for loss in (FromModel(), None):
        model = BertForMaskedLM(tiny.bert().config) if loss else BertModel(tiny.bert().config)
        with pytest.raises(ValueError, match="`label_smoothing_factor` spreads labels that are classes"):
            TransferModel(model, task_loss=loss, label_smoothing=0.1)
