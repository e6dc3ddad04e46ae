"""Masks follow seed, epoch and row, whatever batch the row is in."""

import pytest
import torch
from transformers import DataCollatorForLanguageModeling

from hf_transfer.data.masking import MaskingCollator, repeatable
from hf_transfer.data.text_augmentation import TextAugmentation
from hf_transfer.data.views import ViewCollator
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from tests.ranking.conftest import WORDS, make_tokenizer

VOCABULARY = 8  # fewer than the tokenizer's words


@pytest.fixture(scope="module")
def tokenizer():
    made = make_tokenizer()
    made.add_special_tokens({"mask_token": "[UNK]"})
    return made


@pytest.fixture
def collator(tokenizer):
    return MaskingCollator(DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.5), VOCABULARY, seed=3)


def row(length: int, number: int | None = None, epoch: int = 0) -> dict:
    ids = [2 + place % (VOCABULARY - 2) for place in range(length)]
    visit = {} if number is None else {VISIT_COLUMN: Visit(number, epoch, 0)}
    return {"input_ids": ids, "attention_mask": [1] * length, **visit}


def test_a_rows_masks_do_not_depend_on_its_batch(collator):
    alone = collator([row(20, 5)])
    torch.manual_seed(1)
    among = collator([row(40, 1), row(20, 5), row(9, 2)])
    assert alone["input_ids"][0].tolist() == among["input_ids"][1, :20].tolist()
    assert alone["labels"][0].tolist() == among["labels"][1, :20].tolist()
    assert (among["labels"][1, 20:] == -100).all() and (among["input_ids"][1, 20:] == 0).all()


def test_padding_on_the_left(collator):
    collator.collator.tokenizer.padding_side = "left"
    try:
        batch, alone = collator([row(40, 1), row(20, 5)]), collator([row(20, 5)])
        assert batch["labels"][1, 20:].tolist() == alone["labels"][0].tolist()
        assert batch["input_ids"][1, 20:].tolist() == alone["input_ids"][0].tolist()
    finally:
        collator.collator.tokenizer.padding_side = "right"


def test_another_epoch_and_another_row_are_masked_otherwise(collator):
    def labels(number, epoch):
        return collator([row(60, number, epoch)])["labels"].tolist()

    assert labels(5, 0) == labels(5, 0)
    assert labels(5, 0) != labels(5, 1) and labels(5, 0) != labels(6, 0)


def test_without_a_visit_the_content_decides(collator):
    first, again = collator([row(60)]), collator([row(60), row(61)])
    assert first["labels"][0].tolist() == again["labels"][0, :60].tolist()
    assert first["labels"][0].tolist() != again["labels"][1, :60].tolist()


def test_shares_and_what_stands_for_a_hidden_token(collator):
    batch = collator([row(200, number) for number in range(50)])
    original = torch.tensor([row(200)["input_ids"]] * 50)
    hidden = batch["labels"] != -100
    assert torch.equal(batch["labels"][hidden], original[hidden])
    assert torch.equal(batch["input_ids"][~hidden], original[~hidden])
    assert hidden.float().mean().item() == pytest.approx(0.5, abs=0.03)
    mask = collator.collator.tokenizer.mask_token_id
    assert (batch["input_ids"][hidden] == mask).float().mean().item() == pytest.approx(0.8, abs=0.04)


def test_random_tokens_are_below_the_models_vocabulary(tokenizer):
    """The tokenizer has more words than the model: an id beyond it would fail in the embedding."""
    assert len(tokenizer) > VOCABULARY
    plain = DataCollatorForLanguageModeling(tokenizer, mlm_probability=1.0, mask_replace_prob=0, random_replace_prob=1)
    torch.manual_seed(0)
    assert plain([row(500)])["input_ids"].max() == len(WORDS) - 1
    batch = MaskingCollator(plain, VOCABULARY)([row(500, 0)])
    assert set(batch["input_ids"][0].tolist()) == set(range(VOCABULARY))


def test_the_mask_token_stays_and_is_refused_where_the_model_has_no_embedding_for_it(tokenizer):
    mask = tokenizer.mask_token_id
    always = {"mlm_probability": 1.0, "mask_replace_prob": 1, "random_replace_prob": 0}
    collator = DataCollatorForLanguageModeling(tokenizer, **always)
    assert repeatable(collator, mask + 1, 0)([row(30, 0)])["input_ids"].unique().tolist() == [mask]
    with pytest.raises(ValueError, match=rf"mask token has the number {mask}, and the model a vocabulary of {mask}:"):
        repeatable(collator, mask, 0)


def test_other_collators_stay_as_they_are(tokenizer):
    causal = DataCollatorForLanguageModeling(tokenizer, mlm=False)
    assert repeatable(causal, 10, 0) is causal
    assert repeatable(torch.stack, 10, 0) is torch.stack
    masking = DataCollatorForLanguageModeling(tokenizer)
    assert repeatable(masking, None, 0) is masking
    assert repeatable(masking, 10, 7) == MaskingCollator(masking, 10, 7)
    views = ViewCollator(masking, TextAugmentation(tokenizer))
    assert repeatable(views, 10, 7).collator == MaskingCollator(masking, 10, 7)
    plain = ViewCollator(causal, TextAugmentation(tokenizer))
    assert repeatable(plain, 10, 7) is plain
