"""Tiny tokenizers of every kind of word mark, trained on the sentences of `tests.tiny`."""

from __future__ import annotations

from functools import cache

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast

from hf_transfer.data.bpe import train_bpe
from tests import tiny

TEXTS = [text for text, _ in tiny.SENTENCES]


@cache
def byte_level(sentinels: int = 20) -> PreTrainedTokenizerFast:
    """A BPE of bytes, `Ġ` on tokens that begin a word, without special tokens around a text."""
    return train_bpe(TEXTS, 400, mask_token=True, sentinels=sentinels)


@cache
def word_piece() -> PreTrainedTokenizerFast:
    """`##` on tokens that go on a word, [CLS] and [SEP] around a text."""
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    made = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    made.normalizer = normalizers.Lowercase()
    made.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    made.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=120, special_tokens=special))
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = dict(zip(("pad_token", "unk_token", "cls_token", "sep_token", "mask_token"), special))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


@cache
def sentence_piece() -> PreTrainedTokenizerFast:
    """`▁` on tokens that begin a word, <s> and </s> around a text."""
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    made = Tokenizer(models.BPE(unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=150, special_tokens=special, show_progress=False))
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    names = dict(zip(("bos_token", "pad_token", "eos_token", "unk_token", "mask_token"), special))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)


KINDS = {"bytes": byte_level, "word pieces": word_piece, "sentence pieces": sentence_piece}
