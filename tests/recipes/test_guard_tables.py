"""What the guard of the domain-adaptation benchmarks decides, counted by hand."""

import pytest


@pytest.fixture(scope="module")
def guard_tables(among_the_benchmarks):
    import guard_tables

    return guard_tables


def run(accuracy, score):
    return {"accuracy": accuracy, "validators": {"entropy": score}}


def test_decisions_are_of_the_same_seed_and_counted(guard_tables):
    table = {
        "source_only": {"runs": {"0": run(0.5, -1.0), "1": run(0.6, -1.0)}},
        "dann": {"runs": {"0": run(0.7, -0.5), "1": run(0.5, -0.5), "2": run(0.9, 0.0)}},
        "mcc": {"runs": {"0": run(0.59, -1.5), "1": run(0.59, -2.0)}},
        "coral": {"runs": {"0": run(0.9, float("nan"))}},
    }
    found = list(guard_tables.decisions("mnist_to_digits", table, "entropy"))
    assert [(round(one.gain, 6), one.kept) for one in found] == [(20, True), (-10, True), (9, False), (-1, False)]
    # one decision of each kind; always (20 - 10 + 9 - 1) / 4, guarded (20 - 10) / 4, at best (20 + 9) / 4
    assert guard_tables.cells_of(found) == "4 | 1 | 1 (1) | 1 | 1 | +4.5 | +2.5 | +7.2"
    lines = guard_tables.guard_lines({"mnist_to_digits": table}, "entropy")
    assert sum(line.startswith("| mnist_to_digits | 4 |") for line in lines) == 1
    assert guard_tables.guard_lines({"mnist_to_digits": {"dann": table["dann"]}}, "entropy") == []
