"""maggr's arithmetic, by hand; and against sums that are computed another way."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobula.client.commands.aggregation import (
    NAMES,
    OPERATIONS,
    Aggregation,
    BadLine,
    BadPlan,
    Numbers,
    number_of,
    plan_of,
    split,
    written,
)


def results(text: str, by_position: str | None = None, by_column: Sequence[str] = (), **how: object) -> list[str]:
    found = Aggregation(plan_of(by_column, by_position, **how))  # type: ignore[arg-type]
    for line in text.splitlines():
        found.add(line.encode())
    return [line.decode() for line in found.results()]


@pytest.mark.parametrize(
    ("operation", "result"),
    [("count", "4"), ("sum", "20"), ("mean", "5"), ("min", "2"), ("max", "9"), ("range", "7"),
     # 2 4 5 9: off the mean by 3 1 0 4, squares 9 1 0 16 = 26, through 3
     ("variance", str(26 / 3)), ("ovariance", str(26 / 3)), ("stddev", str(math.sqrt(26 / 3)))],
)  # fmt: skip
def test_each_operation_on_four_numbers(operation: str, result: str) -> None:
    assert results("4\n2\n9\n5", operation) == [result]


def test_groups_stand_in_the_order_in_which_they_came() -> None:
    text = "pear\t1\nfig\t10\npear\t2.5\napple\t-1\nfig\t1"
    assert results(text, "key,sum") == ["pear\t3.5", "fig\t11", "apple\t-1"]
    assert results(text, "key") == ["pear", "fig", "apple"]
    assert results(text, "nop,mean") == ["2.7"]
    assert results("a\tx\t1\na\ty\t2\na\tx\t3", "key,key,sum") == ["a\tx\t4", "a\ty\t2"]


def test_columns_by_number_and_several_results_of_one() -> None:
    text = "a 1 10\nb 2 20\na 3 30"
    assert results(text, by_column=["3=min,max,count", "1=key"]) == ["a\t10,30,2", "b\t20,20,1"]
    assert results(text, "key", ["2=sum"]) == ["a\t4", "b\t2"]
    assert results(text, by_column=["1=key", "2=nop", "3=sum"], between=b":", inner=b"/") == ["a:40", "b:20"]
    assert results("1;2\n3;4", "sum,sum", delimiter=b";", between=b";") == ["4;6"]


def test_results_in_formats() -> None:
    text = "a\t1\na\t2"
    assert results(text, "key,mean", usual_format="%.2f") == ["a\t1.50"]
    assert results(text, by_column=["1=key,count", "2=mean,sum"], formats=["2=%5.1f,%03d", "1=<%s>,%x"]) == [
        "<a>,2\t  1.5,003"
    ]
    assert results(text, by_column=["2=mean,sum"], formats=["2=%d"], usual_format="%e") == ["1,3.000000e+00"]


@pytest.mark.parametrize(
    ("by_column", "by_position", "formats", "why"),
    [([], "mode", [], "no operation 'mode'"), ([], None, [], "say what to compute"), (["0=sum"], None, [], "COLUMN=LIST"),
     (["sum"], None, [], "COLUMN=LIST"), (["1="], None, [], "COLUMN=LIST"), ([], "sum", ["1=%d%d"], "no format"),
     ([], "sum", ["1=%n"], "no format"), ([], "sum", ["1=%*d"], "no format"), ([], "key", ["1=%d"], "a key is a text")],
)  # fmt: skip
def test_what_is_no_plan_is_said(by_column: list[str], by_position: str | None, formats: list[str], why: str) -> None:
    with pytest.raises(BadPlan, match=why):
        plan_of(by_column, by_position, formats=formats)


def test_a_line_that_can_not_be_counted_changes_nothing() -> None:
    found = Aggregation(plan_of([], "key,sum,count"))
    found.add(b"a\t1\tx")
    for line in (b"b", b"b\tone\tx", b"b\t\tx", b"b\tnan\tx", b"b\tinf\tx", b"b\t1e999\tx", b"b\t1_0\tx"):
        with pytest.raises(BadLine):
            found.add(line)
    assert found.results() == [b"a\t1\t1"]


def test_nothing_at_all_has_no_result() -> None:
    assert results("", "sum") == []


def test_columns_of_a_line() -> None:
    assert split(b"a b\tc", None) == [b"a b", b"c"]
    assert split(b"  3  4 ", None) == [b"3", b"4"]
    assert split(b"", None) == [b""]
    assert split(b"a,,b", b",") == [b"a", b"", b"b"]


def test_whole_numbers_are_exact() -> None:
    assert results(f"{2**80}\n1", "sum") == [str(2**80 + 1)]
    assert (number_of(b" -3 "), number_of(b"+.5e1"), number_of(b"2.")) == (-3, 5.0, 2.0)
    assert [written(value, "") for value in (3.0, 0.1, 1e300, -2)] == ["3", "0.1", "1e+300", "-2"]
    assert written(math.inf, "%d") == "inf"


def test_a_large_mean_does_not_swallow_the_variance() -> None:
    assert results("1000000000.4\n1000000000.6", "variance") == [
        written(float(Fraction(1, 2) * (Fraction(1000000000.6) - Fraction(1000000000.4)) ** 2), "")
    ]


@given(st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30))
def test_the_variance_is_that_of_a_sample(values: list[float]) -> None:
    found = Numbers()
    for value in values:
        found.add(value)
    assert found.variance == pytest.approx(statistics.variance(values), rel=1e-6, abs=1e-6)


@given(st.binary(max_size=40))
def test_any_line_is_counted_or_refused(line: bytes) -> None:
    found = Aggregation(plan_of(["1=key"], "key,mean", usual_format="%.3f"))
    try:
        found.add(line)
    except BadLine:
        assert found.results() == []
    else:
        assert len(found.results()) == 1


def test_all_operations_of_the_contract_are_there() -> None:
    wanted = "key nop count max mean min range sum ovariance variance stddev"
    assert wanted.split() == list(NAMES)
    assert set(OPERATIONS) <= set(NAMES)
