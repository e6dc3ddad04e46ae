"""Wikipedia articles from the sample of a dump that travels inside gensim."""

from __future__ import annotations

import bz2
import re
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from datasets import Dataset, DatasetDict

from hf_transfer.data.optional import import_optional

SAMPLE = "enwiki-latest-pages-articles1.xml-p000000010p000030302-shortened.bz2"
HELD_OUT_EVERY = 20


@cache
def wikipedia_sample() -> DatasetDict:
    """About 100 whole articles of the English Wikipedia (3 million characters), column `text`, without markup.

    Of every 20 articles, in the order of the dump, the last goes to `test`, the one before to `validation` and the
    rest to `train`. Redirects and pages outside the article namespace are left out.

    Raises:
        ValueError: gensim, or the sample inside it, is not installed.
    """
    wiki = import_optional("gensim.corpora.wikicorpus", "the data set wikipedia_sample")
    path = Path(find_spec("gensim").origin).parent / "test" / "test_data" / SAMPLE
    if not path.is_file():
        raise ValueError(f"the installed gensim lacks {SAMPLE}: install it from its wheel, pip install gensim.")
    splits: dict[str, list[str]] = {"train": [], "validation": [], "test": []}
    with bz2.open(path) as file:
        pages = wiki.extract_pages(file, filter_namespaces=("0",))
        articles = [markup for _, markup, _ in pages if markup and not markup.lower().startswith("#redirect")]
    for index, markup in enumerate(articles):
        role = {HELD_OUT_EVERY - 1: "test", HELD_OUT_EVERY - 2: "validation"}.get(index % HELD_OUT_EVERY, "train")
        splits[role].append(plain_text(wiki.filter_wiki(markup)))
    return DatasetDict({name: Dataset.from_dict({"text": texts}) for name, texts in splits.items()})


def plain_text(text: str) -> str:
    """Text without the quotes that mark bold and italic words, and with at most one empty line in a row."""
    return re.sub(r"\s*\n\s*\n\s*", "\n\n", re.sub(r"'{2,}", "", text)).strip()
