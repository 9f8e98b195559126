"""The bound on deciding a request."""

from __future__ import annotations

import asyncio

import pytest

from mobula.core.errors import ApiError
from mobula.webapi.bound import Bound

SHORT_S, LONG_S = 0.02, 5.0


async def test_what_takes_too_long_is_503_and_may_be_tried_again() -> None:
    with pytest.raises(ApiError) as raised:
        async with Bound.of(SHORT_S):
            await asyncio.sleep(LONG_S)
    assert (raised.value.status, dict(raised.value.headers)) == (503, {"Retry-After": "1"})
    assert "within 0.02 s" in raised.value.message


async def test_the_time_in_which_the_client_is_waited_for_does_not_count() -> None:
    async with Bound.of(SHORT_S) as bound:
        with bound.paused():
            await asyncio.sleep(SHORT_S * 3)


async def test_but_what_comes_after_it_does() -> None:
    async def take_then_wait() -> None:
        async with Bound.of(SHORT_S) as bound:
            with bound.paused():
                await asyncio.sleep(0)
            await asyncio.sleep(LONG_S)

    with pytest.raises(ApiError):
        await take_then_wait()


async def test_a_client_that_fails_leaves_the_bound_as_it_was() -> None:
    async def fail_then_wait() -> None:
        async with Bound.of(SHORT_S) as bound:
            with pytest.raises(ValueError, match="broken"), bound.paused():
                raise ValueError("broken")
            await asyncio.sleep(LONG_S)

    with pytest.raises(ApiError):
        await fail_then_wait()


async def test_an_answer_that_has_begun_takes_as_long_as_it_takes() -> None:
    async with Bound.of(SHORT_S) as bound:
        bound.lift()
        with bound.paused():
            await asyncio.sleep(SHORT_S * 3)
        await asyncio.sleep(SHORT_S * 3)


async def test_a_step_that_ran_out_of_its_own_time_says_so_itself() -> None:
    with pytest.raises(TimeoutError):
        async with Bound.of(LONG_S), asyncio.timeout(0):
            await asyncio.sleep(LONG_S)
