"""A byte-level BPE tokenizer trained on the texts at hand.

Paper: Sennrich et al., ACL 2016, https://huggingface.co/papers/1508.07909; bytes as in GPT-2.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PADDING, END = "<pad>", "<eos>"
SMALLEST_VOCABULARY = 258
"""256 bytes and two special tokens."""


def train_bpe(texts: Iterable[str], vocab_size: int = 4000) -> PreTrainedTokenizerFast:
    """A tokenizer with at most `vocab_size` tokens, `<pad>` (0) and `<eos>` (1) among them; no text is unknown to it.

    Args:
        texts: what to learn from.
        vocab_size: at least 258.

    Raises:
        ValueError: `vocab_size` out of range.
    """
    if vocab_size < SMALLEST_VOCABULARY:
        raise ValueError(f"`vocab_size` should be at least {SMALLEST_VOCABULARY} (256 bytes), got {vocab_size}.")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PADDING, END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token=PADDING, eos_token=END, bos_token=END)
