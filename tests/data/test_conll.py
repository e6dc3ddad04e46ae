"""CoNLL files of several kinds, and lines that are no words with a tag."""

import pytest

from hf_transfer.data.bundled import load

CONLL = "-DOCSTART- -X- O O\n\nEU NNP B-NP B-ORG\nrejects VBZ B-VP O\n\n\nPeter NNP B-NP B-PER\n"
UNIVERSAL = """# text = I haven't
1\tI\tI\tPRON\t_
2-3\thaven't\t_\t_\t_
2\thave\thave\tAUX\t_
3\tn't\tnot\tPART\t_

1\tNew York\tNew York\tPROPN\t_
1.1\tis\tbe\tAUX\t_
"""


def write(tmp_path, name, text, encoding="utf-8"):
    (tmp_path / name).write_bytes(text.encode(encoding))
    return str(tmp_path / name)


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_sentences_of_words_and_last_columns(tmp_path, ending, encoding):
    rows = load(write(tmp_path, "train.conll", CONLL.replace("\n", ending), encoding))
    assert rows["words"][:] == [["EU", "rejects"], ["Peter"]]
    assert rows["labels"][:] == [["B-ORG", "O"], ["B-PER"]]


def test_a_space_that_does_not_break_is_a_part_of_its_word(tmp_path):
    rows = load(write(tmp_path, "train.conll", "10\u00a0000 B-NUM\neuros O\n"))
    assert rows[0] == {"words": ["10\u00a0000", "euros"], "labels": ["B-NUM", "O"]}


def test_universal_dependencies(tmp_path):
    rows = load(write(tmp_path, "train.conllu", UNIVERSAL))
    assert rows["words"][:] == [["I", "have", "n't"], ["New York"]]
    assert rows["labels"][:] == [["PRON", "AUX", "PART"], ["PROPN"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("EU B-ORG\nrejects\n", "cannot read `.*': line 2 has 1 columns and the first one 2".replace("'", "`")),
        ("EU\n", "line 1 has 1 columns"),
        ("\n\n", "it has no words"),
    ],
)
def test_lines_without_a_tag_are_named(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        load(write(tmp_path, "train.bio", text))
    with pytest.raises(ValueError, match="line 1 is not UTF-8"):
        load(write(tmp_path, "train.bio", "Köln B-LOC\n", "latin-1"))
