import pytest
import torch

from hf_transfer.data.text_augmentation import TextAugmentation
from tests import tiny


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def reader(side: str = "right", **tokens):
    made = tiny.tokenizer()
    made.padding_side = side
    made.add_special_tokens({"cls_token": "[CLS]", **tokens})
    return made


def encoded(tokenizer) -> dict[str, torch.Tensor]:
    texts = [f"[CLS] {text}" for text, _ in tiny.SENTENCES]
    batch = dict(tokenizer(texts, padding=True, return_tensors="pt"))
    return {**batch, "token_type_ids": batch["input_ids"] % 2, "other": torch.arange(len(texts))}


def test_masked_tokens_are_ordinary_ones():
    tokenizer = reader(mask_token="[MASK]")
    batch = encoded(tokenizer)
    changed = TextAugmentation(tokenizer, strong_share=0.4).strong(batch, generator())
    tokens, masked = batch["input_ids"], changed["input_ids"] == tokenizer.mask_token_id
    assert torch.equal(changed["input_ids"][~masked], tokens[~masked])
    ordinary = ~torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
    assert not masked[~ordinary].any()
    assert 0.25 < masked.sum() / ordinary.sum() < 0.45
    assert (ordinary & ~masked).any(dim=1).all(), "every row keeps a word"
    assert torch.equal(changed["attention_mask"], batch["attention_mask"])


@pytest.mark.parametrize("side", ["right", "left"])
def test_dropped_tokens_leave_the_rest_in_order(side):
    tokenizer = reader(side)
    batch = encoded(tokenizer)
    changed = TextAugmentation(tokenizer, strong_share=0.4).strong(batch, generator())
    assert changed["input_ids"].shape == batch["input_ids"].shape and torch.equal(changed["other"], batch["other"])
    lost = 0
    for row in range(len(batch["input_ids"])):
        real, kept = batch["attention_mask"][row].bool(), changed["attention_mask"][row].bool()
        before, after = batch["input_ids"][row][real].tolist(), changed["input_ids"][row][kept].tolist()
        remaining = iter(before)
        assert all(token in remaining for token in after), "a subsequence"
        assert after[0] == tokenizer.cls_token_id and len(after) > 1
        assert changed["token_type_ids"][row][kept].tolist() == [token % 2 for token in after]
        assert (changed["input_ids"][row][~kept] == tokenizer.pad_token_id).all()
        assert kept.tolist() == sorted(kept.tolist(), reverse=side == "right"), "padding on one side"
        lost += len(before) - len(after)
    assert lost > 20


def test_a_weak_augmentation_changes_less_and_the_generator_decides():
    tokenizer = reader(mask_token="[MASK]")
    augmentation, batch = TextAugmentation(tokenizer), encoded(tokenizer)
    counts = [
        (change(batch, generator(2))["input_ids"] != batch["input_ids"]).sum().item()
        for change in (augmentation.weak, augmentation.strong)
    ]
    assert 0 < counts[0] < counts[1]
    again = augmentation.strong(batch, generator(2))["input_ids"]
    assert torch.equal(again, augmentation.strong(batch, generator(2))["input_ids"])
    assert not torch.equal(again, augmentation.strong(batch, generator(3))["input_ids"])


@pytest.mark.parametrize(
    "keywords", [{"weak_share": 1.0}, {"strong_share": -1}, {"change": "swap"}, {"change": "mask"}]
)
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        TextAugmentation(reader(), **keywords)
