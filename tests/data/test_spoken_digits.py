"""Digits of a synthetic voice, and a machine without one."""

import pytest

from hf_transfer.data import spoken_digits
from hf_transfer.data.bundled import load


def test_without_the_program_it_is_named(monkeypatch):
    monkeypatch.setattr(spoken_digits.shutil, "which", lambda name: None)
    with pytest.raises(ValueError, match="needs the program espeak-ng: apt-get install espeak-ng"):
        load("spoken_digits", options={"voice": "none"})


def test_every_word_has_as_many_rows_and_other_pitches_in_the_test(monkeypatch, tmp_path):
    program = tmp_path / "espeak-ng"
    program.write_text('#!/bin/sh\n[ "$2" = mute ] && { echo no voice >&2; exit 1; }\necho "$@"\n')
    program.chmod(0o755)
    monkeypatch.setattr(spoken_digits.shutil, "which", lambda name: str(program))
    monkeypatch.setattr(spoken_digits, "SPEEDS", [120])
    train, test = (load("spoken_digits", split, options={"voice": "en"}) for split in ("train", "test"))
    assert len(train) == 120 and len(test) == 40 and train.features["label"].names[7] == "seven"
    assert train[0]["audio"]["bytes"] == b"-v en -p 20 -s 120 --stdout zero\n"
    assert not {one["path"].split("_")[1] for one in test["audio"]} & {
        one["path"].split("_")[1] for one in train["audio"]
    }
    with pytest.raises(ValueError, match="espeak-ng cannot speak by 'mute': no voice"):
        load("spoken_digits", options={"voice": "mute"})
