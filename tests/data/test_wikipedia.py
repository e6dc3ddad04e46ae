import pytest

from hf_transfer.data import wikipedia


def test_every_twentieth_article_is_held_out(monkeypatch):
    wikicorpus = pytest.importorskip("gensim.corpora.wikicorpus")
    pages = [(f"{place}", f"'''Article''' {place} about [[thing|things]].", place) for place in range(45)]
    pages.insert(3, ("redirect", "#REDIRECT [[Article]]", 99))
    monkeypatch.setattr(wikicorpus, "extract_pages", lambda file, filter_namespaces: iter(pages))
    splits = wikipedia.wikipedia_sample.__wrapped__()
    assert splits["test"]["text"][:] == ["Article 19 about things.", "Article 39 about things."]
    assert splits["validation"]["text"][:] == ["Article 18 about things.", "Article 38 about things."]
    assert len(splits["train"]) == 41


def test_a_real_dump_is_read(monkeypatch):
    pytest.importorskip("gensim")
    monkeypatch.setattr(wikipedia, "SAMPLE", "bgwiki-latest-pages-articles-shortened.xml.bz2")
    first, again = (wikipedia.wikipedia_sample.__wrapped__()["train"]["text"][:] for _ in range(2))
    assert first == again and len(first) == 1
    assert first[0].startswith("Папа Григорий XIII") and "[[" not in first[0]


def test_text_without_marks_of_type():
    assert wikipedia.plain_text("\n\n'''A''' is ''b''.\n \n\n\nC\n") == "A is b.\n\nC"
