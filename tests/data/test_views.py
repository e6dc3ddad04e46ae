import logging

import pytest
import torch
from transformers import DataCollatorWithPadding, default_data_collator

from hf_transfer.core.objective import Objective
from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.image_augmentation import ImageAugmentation
from hf_transfer.data.series_augmentation import SeriesAugmentation
from hf_transfer.data.views import AUGMENTATIONS, ViewCollator, make_augmentation
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny
from tests.marks import slow

VIEWS = ViewCollator(default_data_collator, ImageAugmentation())


@pytest.fixture(scope="module")
def rows(digits):
    return [digits[place] for place in range(8)]


class Seen(Objective):
    """Writes down both views of every batch."""

    paper = "none"
    needs = frozenset({"views"})

    def __init__(self):
        super().__init__()
        self.batches = []

    def forward(self, view):
        self.batches.append((view.inputs["pixel_values"].clone(), view.views[0].inputs["pixel_values"].clone()))
        return view.features.mean() * 0


def trainer(folder, rows, objectives, model=None, **changes) -> TransferTrainer:
    torch.manual_seed(0)
    fields = {
        "max_steps": 4,
        "per_device_train_batch_size": 8,
        "save_strategy": "no",
        "use_cpu": True,
        "report_to": [],
    }
    own = {
        name: changes.pop(name) for name in ("data_collator", "processing_class", "eval_dataset") if name in changes
    }
    args = TransferConfig(str(folder), disable_tqdm=True, **{**fields, **changes})
    return TransferTrainer(model or tiny.vit(), args, objectives=objectives, train_dataset=rows, **own)


def test_every_input_has_a_copy_and_labels_have_none(rows):
    plain = default_data_collator(rows)
    batch = VIEWS([{**row, "domain": 1} for row in rows])
    assert batch.keys() == {"pixel_values", "view_pixel_values", "labels", "domain"}
    assert torch.equal(batch["labels"], plain["labels"])
    assert not torch.equal(batch["pixel_values"], batch["view_pixel_values"])
    unchanged = ViewCollator(default_data_collator, ImageAugmentation(), first="none", second=None)(rows)
    assert unchanged.keys() == plain.keys() and torch.equal(unchanged["pixel_values"], plain["pixel_values"])


def test_tokens_come_with_their_mask():
    tokenizer = tiny.tokenizer()
    augmentation, _ = make_augmentation(["input_ids"], {"strong_share": 0.5}, tokenizer)
    features = [{**tokenizer(text), "labels": book} for text, book in tiny.SENTENCES[:4]]
    batch = ViewCollator(DataCollatorWithPadding(tokenizer), augmentation)(features)
    assert {"input_ids", "view_input_ids", "attention_mask", "view_attention_mask"} <= batch.keys()
    assert batch["view_attention_mask"].sum() < batch["attention_mask"].sum()


def test_series_come_with_their_mask_and_domain():
    features = [{"past_values": torch.randn(length, 2), "label": 0, "domain": 1} for length in (4, 9)]
    batch = ViewCollator(PaddingCollator("past_values"), SeriesAugmentation())(features)
    assert batch["view_past_values"].shape == (2, 9, 2) and batch["domain"].tolist() == [1, 1]
    assert torch.equal(batch["view_attention_mask"], batch["attention_mask"])


def test_seed_and_row_decide_the_draws_and_nothing_else(rows):
    first = VIEWS(rows)["view_pixel_values"]
    torch.rand(3)
    assert torch.equal(VIEWS(rows[::-1])["view_pixel_values"].flip(0), first)
    assert torch.equal(VIEWS(rows[2:3])["view_pixel_values"], first[2:3])
    other = ViewCollator(default_data_collator, ImageAugmentation(), seed=1)
    assert not torch.equal(other(rows)["view_pixel_values"], first)


def test_the_visit_decides_where_it_is_told(rows):
    def view(row: int, *visit: int) -> torch.Tensor:
        return VIEWS([{**rows[row], VISIT_COLUMN: Visit(*visit)}])["view_pixel_values"]

    first = view(0, 5, 0, 0)
    assert torch.equal(view(0, 5, 0, 0), first)
    for other in ((6, 0, 0), (5, 1, 0), (5, 0, 1)):
        assert not torch.equal(view(0, *other), first)
    assert VIEWS([{**rows[0], VISIT_COLUMN: Visit(0, 0, 0)}]).keys() == VIEWS(rows[:1]).keys()


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("change", ["mask", "drop"])
def test_the_rest_of_the_batch_and_its_padding_change_no_token(side, change):
    tokenizer = tiny.tokenizer()
    tokenizer.padding_side = side
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    augmentation, _ = make_augmentation(["input_ids"], {"strong_share": 0.5, "change": change}, tokenizer)
    collator = ViewCollator(DataCollatorWithPadding(tokenizer), augmentation)
    texts = sorted((text for text, _ in tiny.SENTENCES[:6]), key=len)
    features = [{**tokenizer(text), VISIT_COLUMN: Visit(row, 2, 0)} for row, text in enumerate(texts)]
    batch, alone = collator(features), collator(features[:1])
    for name in ("view_input_ids", "view_attention_mask"):
        count = alone[name].shape[1]
        assert count < batch[name].shape[1], "the short row is padded in the batch"
        part = batch[name][0, :count] if side == "right" else batch[name][0, -count:]
        assert torch.equal(part, alone[name][0])


def test_the_padding_of_a_series_stays_and_changes_no_step():
    features = [{"past_values": torch.randn(n, 2), VISIT_COLUMN: Visit(n, 0, 0)} for n in (5, 40)]
    collator = ViewCollator(PaddingCollator("past_values"), SeriesAugmentation(), first="strong")
    batch, alone = collator(features), collator(features[:1])
    assert torch.equal(batch["past_values"][0, :5], alone["past_values"][0])
    assert not batch["past_values"][0, 5:].any()


@pytest.mark.parametrize("workers", [0, slow(2)])
def test_every_epoch_shows_a_row_anew_at_any_batch_size(tmp_path, digits, workers):
    """Four rows, three epochs: twelve different pictures, and the same ones in batches of one and of four."""
    shown = {}
    for size in (1, 4):
        settings = {"per_device_train_batch_size": size, "max_steps": 12 // size, "dataloader_num_workers": workers}
        seen = Seen()
        trainer(tmp_path, digits.select(range(4)), {"seen": seen}, **settings).train()
        shown[size] = torch.cat([second for _, second in seen.batches])
    assert len(shown[1].flatten(1).unique(dim=0)) == 12
    assert torch.equal(shown[1], shown[4])


@pytest.mark.parametrize("workers", [0, slow(2)])
def test_a_resumed_run_sees_the_views_of_a_straight_one(tmp_path, digits, workers):
    few = digits.select(range(24))  # three steps an epoch: the fifth is in the second
    settings = {"dataloader_num_workers": workers, "max_steps": 5}
    straight = trainer(tmp_path, few, {"seen": Seen()}, save_strategy="steps", save_steps=2, **settings)
    straight.train()
    resumed = trainer(tmp_path, few, {"seen": Seen()}, **settings)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    expected, seen = (one.transfer_model.objectives["seen"].batches for one in (straight, resumed))
    assert len(expected) == 5 and len(seen) == 3
    for (a, b), (c, d) in zip(expected[2:], seen):
        assert torch.equal(a, c) and torch.equal(b, d) and not torch.equal(a, b)


def test_an_objective_with_views_gets_the_usual_augmentation_and_the_log_says_so(tmp_path, digits, caplog):
    logger = logging.getLogger("hf_transfer.data.views")
    logger.addHandler(caplog.handler)
    made = trainer(tmp_path, digits, {"seen": Seen()}, eval_dataset=digits, seed=3)
    logger.removeHandler(caplog.handler)
    assert "['seen'] compare two views of every row: weak and strong ImageAugmentation(shift=0.125" in caplog.text
    assert made.train_collator == ViewCollator(default_data_collator, ImageAugmentation(), seed=3)
    evaluated = next(iter(made.get_eval_dataloader()))
    assert torch.equal(evaluated["pixel_values"], tiny.batch_of(digits)["pixel_values"]), "evaluation sees plain rows"
    assert "view_pixel_values" in next(iter(made.get_train_dataloader()))


def test_settings_change_it_and_need_no_comparison(tmp_path, digits):
    settings = {"flip": True, "first": "strong"}
    assert trainer(tmp_path, digits, {}, augmentation=settings).train_collator == ViewCollator(
        default_data_collator, ImageAugmentation(flip=True), first="strong", second=None, seed=42
    )
    compared = trainer(tmp_path, digits, {"seen": Seen()}, augmentation={**settings, "second": "weak"})
    assert (compared.train_collator.first, compared.train_collator.second) == ("strong", "weak")


def test_collators_of_ones_own_stay(tmp_path, digits):
    made = trainer(tmp_path, digits, {"seen": Seen()}, data_collator=VIEWS)
    assert made.train_collator is VIEWS and made.data_collator is default_data_collator

    def own(features):
        batch = default_data_collator(features)
        return {**batch, "view_pixel_values": batch["pixel_values"]}

    assert trainer(tmp_path, digits, {"seen": Seen()}, data_collator=own).train_collator is own


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"augmentation": {"zoom": 1}}, r"`augmentation` has no \['zoom'\], accepted: .*'shift'"),
        ({"augmentation": {"shift": 2}}, "`shift` should be in"),
        ({"augmentation": {"second": None}}, r"\['seen'\] compare two views: .* as `second`"),
        ({"augmentation": {"first": "mighty"}}, "`first` should be one of"),
        ({"augmentation": "strong"}, "`augmentation` should be a mapping"),
        ({"train_sampling_strategy": "batch_rebalance"}, "should not be batch_rebalance"),
        ({"augmentation": {}, "data_collator": VIEWS}, "give `augmentation` or a ViewCollator, not both"),
        (
            {"data_collator": ViewCollator(default_data_collator, ImageAugmentation(), second=None)},
            "the ViewCollator gives one: set its `second`",
        ),
    ],
)
def test_a_second_view_that_nothing_makes_is_refused_before_training(tmp_path, digits, changes, message):
    with pytest.raises((ValueError, TypeError), match=message):
        trainer(tmp_path, digits, {"seen": Seen()}, **changes)


def test_text_needs_its_tokenizer(tmp_path, sentences):
    with pytest.raises(ValueError, match="the augmentation of text needs its tokenizer"):
        trainer(tmp_path, sentences, {"seen": Seen()}, tiny.bert(), data_collator=default_data_collator)


def test_rows_that_nothing_augments():
    with pytest.raises(ValueError, match=r"nothing augments rows of \['states'\], only of \['pixel_values'"):
        make_augmentation(["states"])
    assert set(AUGMENTATIONS) == {"pixel_values", "input_ids", "past_values"}
