"""A byte-level BPE tokenizer trained on the texts at hand.

Paper: Sennrich et al., ACL 2016, https://huggingface.co/papers/1508.07909; bytes as in GPT-2.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

PADDING, END, MASK = "<pad>", "<eos>", "<mask>"
SMALLEST_VOCABULARY = 258
"""256 bytes and two special tokens."""


def train_bpe(
    texts: Iterable[str], vocab_size: int = 4000, mask_token: bool = False, sentinels: int = 0
) -> PreTrainedTokenizerFast:
    """A tokenizer with at most `vocab_size` tokens, `<pad>` (0) and `<eos>` (1) among them; no text is unknown to it.

    Args:
        texts: what to learn from.
        vocab_size: at least 258, and one more for every further special token.
        mask_token: whether there is `<mask>` (2), which masked language modelling and denoising put in.
        sentinels: how many `<extra_id_0>`, `<extra_id_1>` ... there are, downwards from the last number of the
            vocabulary, which span corruption puts in.

    Raises:
        ValueError: a number out of range.
    """
    if sentinels < 0:
        raise ValueError(f"`sentinels` should be at least 0, got {sentinels}.")
    least = SMALLEST_VOCABULARY + bool(mask_token) + sentinels
    if vocab_size < least:
        raise ValueError(f"`vocab_size` should be at least {least} (256 bytes, special tokens), got {vocab_size}.")
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - sentinels,
        special_tokens=[PADDING, END, *[MASK] * bool(mask_token)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    special = {"pad_token": PADDING, "eos_token": END, "bos_token": END}
    special |= {"mask_token": MASK} if mask_token else {}
    special |= {"extra_special_tokens": [f"<extra_id_{index}>" for index in reversed(range(sentinels))]}
    return PreTrainedTokenizerFast(tokenizer_object=bpe, **special)
