"""CoOp: the words before the name of a class are learnt as vectors; both towers stay as they are.

    text of class c = [v_1] [v_2] ... [v_M] NAME_c
    p(c | image) = softmax_c s cos(image, text of class c),   loss = -log p(label | image)

The M vectors are shared by all classes. They take the places of words of the vocabulary that no class is named with,
as PEFT's trainable tokens: a run saves an adapter of M vectors, which loads by `PeftModel.from_pretrained` over the
plain model, and a tokenizer that reads these words.

Paper: Zhou et al., "Learning to Prompt for Vision-Language Models", IJCV 2022,
https://huggingface.co/papers/2109.01134: M = 16 vectors drawn from N(0, .02^2), the name behind them, one context for
all classes; M = 4 with `initial: a photo of a`.
"""

from __future__ import annotations

import torch
from peft import PeftModel, TrainableTokensConfig, get_peft_model
from peft.tuners.trainable_tokens.layer import TrainableTokensLayer
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_transfer.core.converter import converts
from hf_transfer.data.text_length import longest_text
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.modeling.class_texts import CONTEXT, PROMPT, add_words, class_names_of
from hf_transfer.modeling.processors import stored_processor

SPREAD = 0.02
UNUSED = "[unused"
"""How the vocabulary of a BERT calls entries that no text has."""


@converts()
def convert(model: nn.Module, *, context: int = 16, initial: str | None = None, seed: int = 0) -> nn.Module:
    """Freeze a model with an image and a text tower, and put an adapter of `context` vectors on its text tower.

    Args:
        model: a CLIPModel, SiglipModel or VisionTextDualEncoderModel from a folder or the Hub, with named classes.
        context: M, at least 1.
        initial: a text whose words the vectors start from; the rest is drawn at random, and all where it is left out.
        seed: of the draw.

    Raises:
        ValueError: a keyword is out of its range; a model of another kind, without classes that have names, or
            without a tokenizer; texts would be longer than the text tower reads.
    """
    require_positive(context=context)
    embedding = word_embedding(model)
    source = model.config._name_or_path
    if not source:
        raise ValueError("`coop` learns words for a trained model: start from a saved `model`.")
    tokenizer = stored_processor("image_text", source).tokenizer
    names = class_names_of(model.config)
    tokens = [tokenizer(name, add_special_tokens=False)["input_ids"] for name in names]
    words = free_words(tokenizer, context, {token for row in tokens for token in row}, embedding.num_embeddings)
    check_length(model, tokenizer, context + max(map(len, tokens)))
    numbers = tokenizer.convert_tokens_to_ids(words)
    start = first_vectors(embedding, tokenizer, context, initial, seed)
    name = next(name for name, module in model.named_modules() if module is embedding)
    revision = getattr(model.config, "_commit_hash", None)
    made = get_peft_model(
        model, TrainableTokensConfig(token_indices=numbers, target_modules=[name], revision=revision)
    )
    (layer,) = (module for module in made.modules() if isinstance(module, TrainableTokensLayer))
    layer.trainable_tokens_delta["default"].data.copy_(start)
    add_words(tokenizer, words)
    prompt = f"{' '.join(words)} {{}}"
    if [token for token in tokenizer(prompt.format(names[0]))["input_ids"] if token in numbers] != numbers:
        raise ValueError(f"the tokenizer of `{source}` cannot read entries of its vocabulary, such as {words[0]!r}.")
    setattr(model.config, CONTEXT, words)
    setattr(model.config, PROMPT, prompt)
    return made


convert.paper = "2109.01134"


def word_embedding(model: nn.Module) -> nn.Embedding:
    """The embedding of the words of the text tower. Raises ValueError for a model without one."""
    tower = getattr(model, "text_model", None)
    if isinstance(model, PeftModel) or not isinstance(tower, PreTrainedModel) or not hasattr(model, "vision_model"):
        raise ValueError(
            f"`coop` learns texts of classes for a model with an image and a text tower, got {type(model).__name__}: "
            "load a CLIPModel, a SiglipModel or a VisionTextDualEncoderModel by `task: prompted-image-classification`."
        )
    return tower.get_input_embeddings()


def free_words(tokenizer: PreTrainedTokenizerBase, count: int, taken: set[int], rows: int) -> list[str]:
    """Entries of the vocabulary that no class is named with: those called unused, then from its end.

    Args:
        tokenizer: of the text tower.
        count: how many.
        taken: tokens of the names.
        rows: of the embedding.

    Raises:
        ValueError: there are not so many.
    """
    taken = taken | set(tokenizer.all_special_ids)
    free = [(word, token) for word, token in tokenizer.get_vocab().items() if token not in taken and token < rows]
    free = [(word, token) for word, token in free if word.strip() == word and "{" not in word and "}" not in word]
    unused = sorted((token, word) for word, token in free if word.startswith(UNUSED))
    others = sorted(((token, word) for word, token in free if not word.startswith(UNUSED)), reverse=True)
    if len(free) < count:
        raise ValueError(f"`context` should be at most {len(free)}, the entries of the vocabulary that are free.")
    return [word for _, word in [*unused, *others][:count]]


def check_length(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, tokens: int) -> None:
    """Raises ValueError where so many tokens of a text and the special ones are more than the text tower reads."""
    longest, special = longest_text(model.config, tokenizer, None), tokenizer.num_special_tokens_to_add()
    if longest is not None and tokens + special > longest:
        raise ValueError(
            f"`context` should be smaller by {tokens + special - longest}: with the longest class name a text has "
            f"{tokens + special} tokens, and the text tower reads {longest}."
        )


@torch.no_grad()
def first_vectors(
    embedding: nn.Embedding, tokenizer: PreTrainedTokenizerBase, context: int, initial: str | None, seed: int
) -> Tensor:
    """What the context starts from, [M, D]. Raises ValueError where `initial` has more than M tokens."""
    generator = torch.Generator().manual_seed(seed)
    start = SPREAD * torch.randn(context, embedding.embedding_dim, generator=generator)
    start = start.to(embedding.weight)
    tokens = tokenizer(initial, add_special_tokens=False)["input_ids"] if initial else []
    if len(tokens) > context:
        raise ValueError(f"`initial` has {len(tokens)} tokens, more than the `context` of {context}.")
    start[: len(tokens)] = embedding.weight[tokens]
    return start
