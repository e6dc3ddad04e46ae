from dataclasses import dataclass
from enum import Enum

import pytest

from hf_transfer.runs.values import accepted_types, check_types, read_mapping, read_value


class Colour(Enum):
    RED = "red"


@dataclass
class Fields:
    steps: int = 1
    rate: float = 0.1
    name: str | None = None
    names: list[str] | None = None
    more: dict | None = None
    is_on: bool = False
    colour: Colour | str = "red"


@pytest.mark.parametrize(
    "text, value",
    [
        ("no", "no"),
        ("on", "on"),
        ("true", True),
        ("False", False),
        ("1e-3", 1e-3),
        ("1.0e-3", 1e-3),
        ("-2.5", -2.5),
        (".5", 0.5),
        ("5.", 5.0),
        ("12", 12),
        ("-1", -1),
        (".inf", float("inf")),
        ("null", None),
        ("", None),
        ("1e-3x", "1e-3x"),
        ("org/name", "org/name"),
        ("{cdan: {}, mcc: {temperature: 25e-1}}", {"cdan": {}, "mcc": {"temperature": 2.5}}),
        ("[a, 2]", ["a", 2]),
        ("010", 10),
        ("0x1F", 31),
        ("10_000", 10_000),
        ("1:30", "1:30"),
        ("2026-01-31", "2026-01-31"),
        ("~/data.csv", "/home/me/data.csv"),
        ("{teacher: '~/model'}", {"teacher": "/home/me/model"}),
        ("~me", "~me"),
        ("{a: &x {b: 1}, c: {<<: *x, d: 2}}", {"a": {"b": 1}, "c": {"b": 1, "d": 2}}),
    ],
)
def test_values_are_read_as_people_mean_them(text, value, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    read = read_value(text, "key")
    assert read == value and type(read) is type(value)


def test_what_is_not_yaml_is_named():
    with pytest.raises(ValueError, match="`objectives` cannot be read as YAML: while parsing"):
        read_value("{cdan: {", "objectives")


def test_a_key_that_stands_twice_is_refused():
    with pytest.raises(ValueError, match="the key `l2_sp` stands twice"):
        read_value("{l2_sp: {}, l2_sp: {alpha: 3}}", "objectives")


def test_fitting_values_pass():
    values = {"steps": 3, "rate": 1, "name": None, "names": ["a"], "more": {}, "is_on": True, "colour": 3}
    check_types(values, [Fields])


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("steps", "ten", "`steps` should be a whole number, got 'ten'"),
        ("steps", 1.5, "`steps` should be a whole number, got 1.5"),
        ("steps", True, "`steps` should be a whole number, got True"),
        ("rate", "fast", "`rate` should be a number, got 'fast'"),
        ("is_on", "no", "`is_on` should be true or false, got 'no'"),
        ("is_on", 1, "`is_on` should be true or false, got 1"),
        ("name", 5, "`name` should be a string or null, got 5"),
        ("names", "text", "`names` should be a list or null, got 'text'"),
        ("more", [1], "`more` should be a mapping or null"),
    ],
)
def test_values_of_another_type_are_named(name, value, message):
    with pytest.raises(ValueError, match=message):
        check_types({name: value}, [Fields])


def test_a_field_with_other_types_is_left_to_its_own_class():
    assert accepted_types(Colour | str) is None
    assert accepted_types(int | None) == [int, type(None)]


def test_a_mapping_is_read_and_nothing_else():
    assert read_mapping("{ways: 5, shots: 1}", "few_shot") == {"ways": 5, "shots": 1}
    with pytest.raises(ValueError, match="`few_shot` should be a mapping, got 5"):
        read_mapping("5", "few_shot")
