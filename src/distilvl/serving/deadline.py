"""A bound on how long an answer may take."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from distilvl.serving.faults import Fault

T = TypeVar("T")


async def within(seconds: float, work: Awaitable[T]) -> T:
    """The result of `work`, which is cancelled after `seconds`.

    Raises:
        Fault: 504, it took longer.
    """
    try:
        return await asyncio.wait_for(work, seconds)
    except asyncio.TimeoutError as error:
        raise Fault(504, f"No answer within {seconds:g} s.", code="timeout") from error
