"""Lengths as people type them."""

import pytest

from agent.cli.units import pixel_size_angstrom
from agent.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "bare", "angstrom"),
    [
        ("1.11nm", "Å", 11.1),
        ("1.11 nm", "nm", 11.1),
        ("11.1A", "nm", 11.1),
        ("11.1 Å", "nm", 11.1),
        ("1.11", "nm", 11.1),
        ("11.1", "Å", 11.1),
        ("0.5µm", "Å", 5000.0),
        ("2e1", "Å", 20.0),
        (None, "Å", None),
    ],
)
def test_a_length_is_read_with_its_unit(text: str | None, bare: str, angstrom: float | None) -> None:
    assert pixel_size_angstrom(text, bare) == (None if angstrom is None else pytest.approx(angstrom))


@pytest.mark.parametrize("text", ["", "nm", "-1nm", "0", "1 furlong", "inf", "nan", "1e9nm"])
def test_what_is_no_length_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected a length such as 1\.11nm"):
        pixel_size_angstrom(text, "nm")
