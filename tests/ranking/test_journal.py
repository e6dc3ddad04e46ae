from hf_transfer.ranking import RankingRow, Score
from hf_transfer.ranking.journal import Journal

FACTS = {"score": "logme", "layers": (0, 1), "dataset": "abc"}


def make_row(name="a", revision="r1"):
    return RankingRow(name, 0.5, 0.1, layer=1, layers={1: Score(0.5, 0.1, (0.4, 0.6), {"rows": 3})}, revision=revision)


def test_finished_rows_are_found_again(tmp_path):
    Journal(tmp_path / "run", FACTS).add(make_row())
    again = Journal(tmp_path / "run", FACTS)
    assert again.find("a", "r1") == make_row()
    assert again.find("a", "r2") is None and again.find("b", "r1") is None and again.find("a", None) is None


def test_other_settings_or_data_do_not_match(tmp_path):
    Journal(tmp_path, FACTS).add(make_row())
    assert Journal(tmp_path, {**FACTS, "dataset": "abd"}).find("a", "r1") is None
    assert Journal(tmp_path, {**FACTS, "layers": "all"}).find("a", "r1") is None


def test_failures_are_tried_again(tmp_path):
    journal = Journal(tmp_path, FACTS)
    journal.add(RankingRow("a", reason="The Hub is in trouble.", revision="r1"))
    assert journal.find("a", "r1") is None and not journal.path.exists()


def test_half_a_line_is_ignored(tmp_path):
    journal = Journal(tmp_path, FACTS)
    journal.add(make_row("a"))
    whole = journal.path.read_text()
    journal.path.write_text(whole + whole.replace('"a"', '"b"')[:50])
    again = Journal(tmp_path, FACTS)
    assert again.find("a", "r1") == make_row("a") and len(again.rows) == 1


def test_a_row_after_half_a_line_is_not_lost(tmp_path):
    journal = Journal(tmp_path, FACTS)
    journal.add(make_row("a"))
    journal.path.write_text(journal.path.read_text()[:50])
    Journal(tmp_path, FACTS).add(make_row("b"))
    assert Journal(tmp_path, FACTS).find("b", "r1") == make_row("b")


def test_without_a_directory_nothing_is_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    journal = Journal(None, FACTS)
    journal.add(make_row())
    assert journal.find("a", "r1") == make_row() and not list(tmp_path.iterdir())
