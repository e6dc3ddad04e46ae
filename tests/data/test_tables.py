import pytest

from hf_transfer.data.bundled import load


def read(folder, text, name="rows.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return load(str(path)).to_list()


def test_a_tsv_whose_texts_start_with_a_quotation_mark_keeps_its_rows(tmp_path):
    lines = [
        f'"Well, said {place}\t{place % 2}' if place % 5 < 2 else f"row {place}\t{place % 2}" for place in range(100)
    ]
    rows = read(tmp_path, "text\tlabel\n" + "\n".join(lines) + "\n", "rows.tsv")
    assert len(rows) == 100
    assert [f"{row['text']}\t{row['label']}" for row in rows] == lines


@pytest.mark.parametrize("quote", ['"He" said\t0', 'He "said"\t0', '"He\t0'])
def test_quotation_marks_of_a_tsv_belong_to_the_text(tmp_path, quote):
    rows = read(tmp_path, f"text\tlabel\n{quote}\nb\t1\n", "rows.tsv")
    assert [row["text"] for row in rows] == [quote.split("\t")[0], "b"]


def test_a_tsv_that_was_written_with_quoting(tmp_path):
    rows = read(tmp_path, 'text\tlabel\n"a\tb"\t0\n"say ""c"""\t1\n', "rows.tsv")
    assert rows == [{"text": "a\tb", "label": 0}, {"text": 'say "c"', "label": 1}]


WANTED = [{"text": "a, b", "label": 0}, {"text": "c", "label": 1}]


@pytest.mark.parametrize(
    "text",
    [
        'text,label\n"a, b",0\nc,1\n',
        '\ufefftext,label\n"a, b",0\nc,1\n',
        "text;label\na, b;0\nc;1\n",
        "text\tlabel\na, b\t0\nc\t1\n",
        "text|label\r\na, b|0\r\nc|1",
        'text,label\n\n"a, b",0\n\nc,1\n\n',
    ],
)
def test_marks_and_separators(tmp_path, text):
    assert read(tmp_path, text) == WANTED


def test_a_field_of_several_lines(tmp_path):
    assert read(tmp_path, 'text,label\n"a\nb, c",0\nd,1\n') == [
        {"text": "a\nb, c", "label": 0},
        {"text": "d", "label": 1},
    ]


def test_words_for_nothing_are_words_and_empty_cells_are_missing(tmp_path):
    rows = read(tmp_path, "text,label\nNone,0\nNA,1\nnull,0\nnan,1\n,0\n")
    assert [row["text"] for row in rows] == ["None", "NA", "null", "nan", None]


@pytest.mark.parametrize(
    ("text", "encoding", "message"),
    [
        ("text,label\na,0\ncaf\u00e9,1\n", "latin-1", r"line 3 is not UTF-8 text \(byte 0xe9\)"),
        ("text,label\na,0\n", "utf-16", "line 1 is not UTF-8 text .* `iconv -f UTF-16 -t UTF-8"),
        ("text,text,label\na,b,0\n", "utf-8", r"the header names the columns \['text'\] more than once"),
        ("text,label\na,0\nb, c,1\n", "utf-8", "line 3 has 3 fields separated by ',', and the header 2"),
        ("text,label\na,0\nb\n", "utf-8", "line 3 has 1 fields"),
        ("text,label\nx,a,0\nx,b,1\n", "utf-8", "line 2 has 3 fields"),
        ('text,label\n"a,1\nb",0\n', "utf-8", "it has 1 rows where quotation marks enclose .* and 2 where"),
        ("text,label\n", "utf-8", "it has no rows"),
        ("", "utf-8", "it has no rows"),
    ],
)
def test_what_cannot_be_counted_is_refused(tmp_path, text, encoding, message):
    with pytest.raises(ValueError, match=f"cannot read `.*rows.csv`: {message}"):
        read(tmp_path, text, encoding=encoding)
