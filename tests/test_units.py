"""The same objectives on images, tokens and pixels, and on models without a linear head."""

from functools import cache

import numpy as np
import pytest
import torch
from datasets import Dataset, concatenate_datasets
from transformers import BertForMaskedLM

from hf_transfer import DomainAdaptationTrainer, TransferConfig, TransferModel, TransferTrainer
from hf_transfer.core.objective import IGNORED_LABEL, Objective, View
from hf_transfer.data.columns import format_of
from hf_transfer.training.transfer_model import make_objectives
from hf_transfer.training.unit_outputs import unit_outputs
from hf_transfer.validators.information_maximization import information_maximization
from tests import tiny
from tests.modeling.test_readouts import clip, segformer, tagger


class MeanGap(Objective):
    """Squared distance of the two domains' mean features."""

    paper = "none"
    needs = frozenset({"features", "domain"})
    is_bounded = True

    def forward(self, view):
        self.units = len(view.features)
        return (view.source.features.mean(dim=0) - view.target.features.mean(dim=0)).square().sum()


@cache
def token_rows(rows=16) -> Dataset:
    random = np.random.default_rng(0)
    data = []
    for row in range(rows):
        length = int(random.integers(4, 9))
        labels = random.integers(0, 5, length).tolist() if row % 2 == 0 else [IGNORED_LABEL] * length
        data.append({"input_ids": random.integers(5, 40, length).tolist(), "labels": labels, "domain": row % 2})
        data[-1]["attention_mask"] = [1] * length
    return Dataset.from_list(data)


@cache
def pixel_rows(rows=8) -> Dataset:
    random = np.random.default_rng(0)
    maps = [random.integers(0, 4, (32, 32)) if row % 2 == 0 else np.full((32, 32), 255) for row in range(rows)]
    data = {
        "pixel_values": random.normal(size=(rows, 3, 32, 32)).astype("float32").tolist(),
        "domain": [0, 1] * (rows // 2),
    }
    return Dataset.from_dict({**data, "labels": [one.tolist() for one in maps]}).with_format("torch")


def config(tmp_path, **changes) -> TransferConfig:
    fields = {
        "max_steps": 2,
        "per_device_train_batch_size": 4,
        "report_to": [],
        "use_cpu": True,
        "save_strategy": "no",
    }
    return TransferConfig(str(tmp_path), **{**fields, **changes})


def setting(name: str, digit_domains):
    if name == "images":
        return tiny.vit(), digit_domains, {}
    if name == "pixels":
        return segformer(), pixel_rows(), {}
    return tagger(), token_rows(), {"data_collator": pad_tokens}


def pad_tokens(rows):
    longest = max(len(row["input_ids"]) for row in rows)

    def padded(name, value):
        return torch.tensor([row[name] + [value] * (longest - len(row[name])) for row in rows])

    batch = {"input_ids": padded("input_ids", 0), "attention_mask": padded("attention_mask", 0)}
    return {
        **batch,
        "labels": padded("labels", IGNORED_LABEL),
        "domain": torch.tensor([row["domain"] for row in rows]),
    }


@pytest.mark.parametrize("units", ["images", "tokens", "pixels"])
@pytest.mark.parametrize(
    "objectives", [{"gap": MeanGap()}, {"dann": {}, "coral": {}}, {"cdan": {}, "mcc": {}, "l2_sp": {}}]
)
def test_one_objective_aligns_images_tokens_and_pixels(units, objectives, tmp_path, digit_domains):
    torch.manual_seed(0)
    model, rows, more = setting(units, digit_domains)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    trainer = TransferTrainer(
        model, config(tmp_path, logging_steps=1), objectives=objectives, train_dataset=rows, **more
    )
    trainer.train()
    losses = [log for log in trainer.state.log_history if "loss" in log]
    assert len(losses) == 2 and all(np.isfinite(log["loss"]) for log in losses)
    assert {f"loss_{name}" for name in (*objectives, "task")} <= set(losses[0])
    assert any(not torch.equal(start[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("units", ["tokens", "pixels"])
def test_a_domain_adaptation_of_parts_of_rows_is_validated_on_them(units, tmp_path):
    torch.manual_seed(0)
    model, rows, more = setting(units, None)
    args = config(tmp_path, eval_strategy="steps", eval_steps=1, save_strategy="steps", save_steps=1)
    args.load_best_model_at_end = True
    trainer = DomainAdaptationTrainer(model, args, objectives={"dann": {}}, train_dataset=rows, **more)
    trainer.train()
    assert trainer.state.best_model_checkpoint and np.isfinite(trainer.state.best_metric)
    features, logits, domain, labels = trainer.validation_outputs()
    model.eval()
    expected = {0: [], 1: []}
    for row in rows.with_format(None):
        inputs = {"pixel_values": torch.tensor(row["pixel_values"])[None]} if units == "pixels" else None
        inputs = inputs or {"input_ids": torch.tensor(row["input_ids"])[None]}
        inputs["attention_mask"] = torch.ones(1, len(row["input_ids"])) if units == "tokens" else None
        with torch.no_grad():
            found = model(**{name: value for name, value in inputs.items() if value is not None}).logits[0]
        expected[row["domain"]].append(found if units == "tokens" else found.flatten(1).T)
    for one, parts in expected.items():
        of_domain = logits[domain == one]
        parts = torch.cat(parts)
        assert of_domain.shape == parts.shape
        torch.testing.assert_close(of_domain.sort(dim=0)[0], parts.sort(dim=0)[0], rtol=1e-4, atol=1e-5)
    assert (labels[domain == 1] == IGNORED_LABEL).all() and (labels[domain == 0] >= 0).any()
    assert len(features) == len(domain)
    assert trainer.validate() == pytest.approx(information_maximization(features, logits, domain, labels))


@pytest.mark.parametrize("units", ["tokens", "pixels"])
@pytest.mark.parametrize("column", [True, False], ids=["labelled", "unlabelled"])
def test_labels_of_parts_of_target_rows_are_not_read(units, column, tmp_path, caplog):
    model, rows, more = setting(units, None)
    source, target = (rows.filter(lambda row, one=one: row["domain"] == one) for one in (0, 1))
    target = target.map(lambda row: {"labels": np.zeros_like(row["labels"]).tolist()})
    ignored = IGNORED_LABEL if units == "tokens" else 255
    given = [part.remove_columns("domain") for part in (source, target)]
    given[1] = given[1] if column else given[1].remove_columns("labels")
    made = DomainAdaptationTrainer(
        model, config(tmp_path), objectives={"dann": {}}, train_dataset=given[0], target_dataset=given[1], **more
    ).train_dataset.with_format(None)
    assert ("they are not read" in caplog.text) == column
    for row, old in zip(made, [*source.with_format(None), *target.with_format(None)], strict=True):
        expected = np.full(np.shape(old["labels"]), ignored) if old["domain"] else old["labels"]
        assert row["domain"] == old["domain"] and np.array_equal(row["labels"], expected)
    both = concatenate_datasets([source.with_format(None), target.with_format(None).cast(source.features)])
    trainer = DomainAdaptationTrainer(
        model, config(tmp_path), objectives={"dann": {}}, train_dataset=both.with_format(**format_of(rows)), **more
    )
    assert trainer.train_dataset.with_format(None)[:] == made[:]


def test_only_so_many_units_are_validated(tmp_path, monkeypatch):
    model, rows, more = setting("pixels", None)
    trainer = DomainAdaptationTrainer(model, config(tmp_path), objectives={"dann": {}}, train_dataset=rows, **more)
    monkeypatch.setattr(trainer.transfer_model, "returns_features", True)
    few, again, all_of_them = (unit_outputs(trainer, rows, most=most) for most in (100, 100, 10_000))
    assert len(few[0]) == 100 and len(all_of_them[0]) == 8 * 64
    assert all(torch.equal(*pair) for pair in zip(few, again))


def test_parts_of_rows_of_a_stream_are_refused(tmp_path):
    model, rows, more = setting("tokens", None)
    streams = [rows.remove_columns("domain").to_iterable_dataset()] * 2
    with pytest.raises(ValueError, match="hides labels of whole target rows alone"):
        DomainAdaptationTrainer(
            model, config(tmp_path), objectives={}, train_dataset=streams[0], target_dataset=streams[1], **more
        )


def test_the_task_loss_of_tokens_is_the_models_own():
    batch = pad_tokens(token_rows().to_list())
    model = tagger()
    domain = batch.pop("domain")
    ours = TransferModel(model).eval()(**batch, domain=domain)
    own = model(**batch)
    torch.testing.assert_close(ours.loss, own.loss)
    torch.testing.assert_close(ours.logits, own.logits)


def test_the_task_loss_of_pixels_is_of_whole_maps():
    batch = pixel_rows()[:4]
    model = segformer()
    ours = TransferModel(model).eval()(**batch)
    torch.testing.assert_close(ours.loss, model(pixel_values=batch["pixel_values"], labels=batch["labels"]).loss)


def test_a_bounded_objective_sees_a_bounded_number_of_units():
    batch = pixel_rows()[:4]
    for most, seen in ((100, 100), (10_000, 4 * 64)):
        model = TransferModel(segformer(), {"gap": MeanGap()}, max_units=most)
        model.train()(**batch)
        assert model.objectives["gap"].units == seen


def test_units_of_a_view_carry_the_rows_they_are_of():
    view = View(
        features=torch.arange(6.0).unsqueeze(1),
        domain=torch.tensor([0, 0, 1, 1, 1, 0]),
        row=torch.tensor([0, 0, 1, 1, 1, 2]),
        inputs={"input_ids": torch.tensor([[0], [1], [2]])},
    )
    assert view.target.inputs["input_ids"].tolist() == [[1]] and view.target.row.tolist() == [0, 0, 0]
    assert view.source.inputs["input_ids"].tolist() == [[0], [2]] and view.source.row.tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["l2_sp", "ewc"])
def test_weights_of_a_model_without_a_linear_head(name, tmp_path):
    rows = [{"input_ids": [5, 6, 7, 8], "attention_mask": [1] * 4, "labels": [5, IGNORED_LABEL, 7, 8]}] * 4
    model = BertForMaskedLM(tiny.bert().config)
    trainer = TransferTrainer(model, config(tmp_path), objectives={name: {}}, train_dataset=Dataset.from_list(rows))
    trainer.train()
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])
    backbone = tiny.bert().bert
    rows = Dataset.from_list([{"input_ids": [5, 6, 7, 8], "attention_mask": [1] * 4}] * 4)
    trainer = TransferTrainer(backbone, config(tmp_path), objectives={name: {}}, train_dataset=rows)
    trainer.train()
    assert np.isfinite(trainer.state.log_history[-1]["train_loss"])


def test_domains_of_image_embeddings():
    inner = clip()
    batch = {"input_ids": torch.tensor([[1, 2, 49]] * 4), "pixel_values": torch.randn(4, 3, 16, 16)}
    model = TransferModel(inner, make_objectives({"dann": {}}), readout="image_embeds").train()
    output = model(**batch, domain=torch.tensor([0, 0, 1, 1]), return_loss=torch.tensor(True))
    output.loss.backward()
    assert inner.visual_projection.weight.grad.abs().sum() > 0 and inner.text_projection.weight.grad is not None


def test_copies_under_the_models_own_loss_have_labels_of_the_first(sentences):
    class Reads(Objective):
        paper = "none"
        needs = frozenset({"views", "outputs"})

        def forward(self, view):
            self.shapes = [tuple(one.outputs["logits"].shape) for one in (view, *view.views)]
            return view.outputs["logits"].mean() * 0

    batch = tiny.batch_of(sentences, 3)
    batch["labels"] = batch["input_ids"].clone()
    inner = BertForMaskedLM(tiny.bert(hidden_dropout_prob=0.0).config)
    model = TransferModel(inner, {"reads": Reads()}).train()
    output = model(**batch, view_input_ids=batch["input_ids"].flip(0))
    torch.testing.assert_close(output.losses["task"], inner(**batch).loss.detach())
    assert model.objectives["reads"].shapes == [tuple(inner(**batch).logits.shape)] * 2
