import pytest

from scalequest.answers.units import range_as_interval, same_time_of_day, units_agree, without_unit


@pytest.mark.parametrize(
    ("text", "other", "number", "unit"),
    [
        ("5 m/s", "5", "5", {"meter", "/second"}),
        ("5 m/s^{2}", "5", "5", {"meter", "/second2"}),
        ("5 kilometers per hour", "5 mph", "5", {"kilometer", "/hour"}),
        ("5 mph", "5", "5", {"mile", "/hour"}),
        ("5 square feet", "5", "5", {"foot2"}),
        ("18 dollars", "18", "18", {"dollar"}),
        ("\u20ac5", "5", "5", {"euro"}),
        ("5 m", "5", "5", {"meter"}),
        ("5 m", "5 x", "5 m", set()),  # letters in both: a variable
        ("m/s", "5", "m/s", set()),
        ("x/y", "5", "x/y", set()),
        ("5 x/y", "5", "5 x/y", set()),
        ("5 mod 7", "5", "5 mod 7", set()),
        ("5 million", "5", "5 million", set()),
    ],
)
def test_a_unit_is_taken_from_its_number(text: str, other: str, number: str, unit: set[str]):
    assert without_unit(text, other) == (number, unit)


@pytest.mark.parametrize(
    ("first", "second", "agree"),
    [
        ({"meter"}, set(), True),
        ({"meter"}, {"foot"}, False),
        ({"meter"}, {"meter", "/second"}, False),  # another quantity
        ({"apple"}, {"apple", "/box"}, True),
        ({"dollar"}, {"dollar", "/hour"}, True),
        ({"dollar"}, {"cent"}, False),
    ],
)
def test_units_agree_where_one_says_no_more_than_the_other(first: set[str], second: set[str], agree: bool):
    assert units_agree(frozenset(first), frozenset(second)) is agree
    assert units_agree(frozenset(second), frozenset(first)) is agree


@pytest.mark.parametrize(
    ("first", "second", "same"),
    [
        ("12:30 PM", "12:30", True),
        ("12:30 AM", "0:30", True),
        ("12:00 am", "12 pm", False),
        ("3 pm", "15:00", True),
        ("3 pm", "blue", False),
        ("12:30", "12:30", None),
        ("1:2", "2:4", None),
    ],
)
def test_times_of_day(first: str, second: str, same: bool | None):
    assert same_time_of_day(first, second) is same
    assert same_time_of_day(second, first) is same


@pytest.mark.parametrize(
    ("answer", "interval"),
    [
        ("3-5", ("[3,5]", "")),
        ("3 to 5 days", ("[3,5]", "days")),
        ("between 1.5 and 2", ("[1.5,2]", "")),
        ("10 to 20%", ("[10%,20%]", "")),
        ("3 - 5", None),
        ("10-5", None),
        ("$3-5$", None),
        ("3-5 million", None),
        ("2024-05-12", None),
        ("x-5", None),
        ("3 and 5", None),
        ("", None),
    ],
)
def test_ranges_are_closed_intervals(answer: str, interval: tuple[str, str] | None):
    assert range_as_interval(answer) == interval
