"""The final number of an answer, as people and models write numbers."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cna_core.evaluation.final_number import final_number


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("The answer is 42", "42"),
        ("The answer is 42.", "42"),
        ("**Answer: 42**", "42"),
        ("#### 42", "42"),
        ("3 apples and 4 pears make 7 fruits.", "7"),
        ("It costs 1,234 euros", "1234"),
        ("It costs 1,234,567.50 euros", "1234567.5"),
        ("It has 1 234 or rather 1\u202f234 rows", "1234"),
        ("the numbers 1, 2, 3", "3"),
        ("the numbers 1,2,3", "3"),
        ("She pays $18.50.", "18.5"),
        ("She pays 18.50€", "18.5"),
        ("She pays 18.00 dollars", "18"),
        ("a share of .25", "0.25"),
        ("so... 12", "12"),
        ("so...12", "12"),
        ("That is 12.5%.", "12.5"),
        ("That is 12.5 %", "12.5"),
        ("72km", "72"),
        ("72 km/h", "72"),
        ("an area of 20 m2", "20"),
        ("an area of 20 m²", "20"),
        ("30 g of CO2", "30"),
        ("5 on the 3rd day", "5"),
        ("on 5 of the 21st", "5"),
        ("It is -7 degrees", "-7"),
        ("It is −7 degrees", "-7"),
        ("It is minus 7 degrees", "-7"),
        ("a loss of -$3.50", "-3.5"),
        ("= (-4)", "-4"),
        ("10-7 people", "7"),
        ("10 - 7", "7"),
        ("between 5–7", "7"),
        ("- 5 apples", "5"),
        ("9 minus 4", "4"),
        ("3/4 of a cup", "3/4"),
        ("1 1/2 cups", "3/2"),
        ("2½ cups", "5/2"),
        ("½ cup", "1/2"),
        ("-3/4", "-3/4"),
        ("3/4/2020", "2020"),
        ("5/0", "0"),
        ("about 1.5e3", "1500"),
        ("2.5 × 10^3 metres", "2500"),
        (r"2.5 \times 10^{-1}", "0.25"),
        (r"\boxed{12} and then 13", "12"),
        (r"\boxed{12}, no, \boxed{1{,}300 \text{ m}}", "1300"),
        (r"\boxed{\frac{3}{4}}", "3/4"),
        (r"\boxed{1\frac{1}{2}}", "3/2"),
        (r"$\boxed{\$18.50}$", "18.5"),
        (r"\boxed{x} = 9", "9"),
        (r"it is \(12\,500\) litres", "12500"),
        ("12:30", "30"),
        ("version 1.2.3", "1.2"),
    ],
)
def test_the_final_number_is_read_as_it_is_meant(text: str, number: str) -> None:
    assert final_number(text) == Fraction(number)


@pytest.mark.parametrize("text", ["", "none at all", "twelve", "the 3rd", "CO2", "\\boxed{}", "9" * 60, "1e999"])
def test_a_text_without_a_number_has_no_final_number(text: str) -> None:
    assert final_number(text) is None


@given(st.integers(-(10**12), 10**12), st.sampled_from(["{:d}", "{:,d}", "{:.2f}"]), st.sampled_from(["", " kg", "."]))
def test_every_whole_number_comes_back_however_it_is_written(number: int, layout: str, after: str) -> None:
    assert final_number(f"Half of 3 is 1.5, so the answer is {layout.format(number)}{after}") == number


@given(st.decimals(-(10**6), 10**6, places=3), st.text(st.characters(categories=["Lu", "Ll", "Zs"]), max_size=8))
def test_every_decimal_comes_back_whatever_unit_follows(number: object, unit: str) -> None:
    unit = unit if unit[:1].lower() not in ("e", "x", "s", "n", "r", "t") else f" {unit}"
    assert final_number(f"It is {number:,} {unit}") == Fraction(str(number))


@given(st.text())
def test_no_text_at_all_is_an_error(text: str) -> None:
    assert final_number(text) is None or isinstance(final_number(text), Fraction)


@given(st.integers(1, 10**5), st.integers(1, 10**5))
def test_every_fraction_comes_back_plain_and_in_latex(numerator: int, denominator: int) -> None:
    wanted = Fraction(numerator, denominator)
    assert final_number(f"so it is {numerator}/{denominator}.") == wanted
    assert final_number(rf"\boxed{{\frac{{{numerator}}}{{{denominator}}}}}") == wanted
