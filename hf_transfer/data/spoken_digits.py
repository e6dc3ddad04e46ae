"""The digits in words, synthesised by a voice of espeak-ng at several pitches and speeds: the voice is the domain."""

from __future__ import annotations

import itertools
import shutil
import subprocess
from functools import cache

from datasets import Audio, ClassLabel, Dataset, DatasetDict

WORDS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
PITCHES, SPEEDS = range(20, 84, 4), range(120, 220, 20)
"""As espeak-ng takes them: 0 to 99, and words a minute."""
HELD_OUT_EVERY = 4


@cache
def spoken_digits(voice: str = "en-us") -> DatasetDict:
    """800 sounds of 22,050 Hz: 10 words at 16 pitches and 5 speeds; every fourth pitch is the split `test`.

    Args:
        voice: of espeak-ng (`espeak-ng --voices=en`), possibly with a variant: "en-us", "en-gb-scotland", "en-us+f3".

    Raises:
        ValueError: espeak-ng is not installed, or has no such voice.
    """
    program = shutil.which("espeak-ng")
    if program is None:
        raise ValueError("the data set spoken_digits needs the program espeak-ng: apt-get install espeak-ng.")
    splits: dict[str, dict[str, list]] = {name: {"audio": [], "label": []} for name in ("train", "test")}
    for (number, pitch), speed in itertools.product(enumerate(PITCHES), SPEEDS):
        split = splits["test" if number % HELD_OUT_EVERY == HELD_OUT_EVERY - 1 else "train"]
        for word in WORDS:
            command = [program, "-v", voice, "-p", str(pitch), "-s", str(speed), "--stdout", word]
            made = subprocess.run(command, capture_output=True, check=False)
            if made.returncode or not made.stdout:
                raise ValueError(f"`voice`: espeak-ng cannot speak by {voice!r}: {made.stderr.decode().strip()}.")
            split["audio"].append({"bytes": made.stdout, "path": f"{word}_{pitch}_{speed}.wav"})
            split["label"].append(WORDS.index(word))
    return DatasetDict(
        {
            name: Dataset.from_dict(rows)
            .cast_column("audio", Audio(decode=False))
            .cast_column("label", ClassLabel(names=list(WORDS)))
            for name, rows in splits.items()
        }
    )
