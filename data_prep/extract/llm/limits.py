"""Requests and tokens a minute, and how long to wait after a refusal. For asyncio, one instance per run."""

from __future__ import annotations

import asyncio
import email.utils
import random
import time


class RateLimiter:
    """Lets requests through at no more than so many requests and tokens a minute, evenly; and pauses all of them.

    A bucket holds one second's worth (at least one request): no burst at the start that a server would refuse.
    """

    def __init__(self, requests_per_minute: float = 0, tokens_per_minute: float = 0) -> None:
        self._rates = (requests_per_minute / 60, tokens_per_minute / 60)
        self._next = [0.0, 0.0]  # When the next request may go, by each limit.
        self._paused_until = 0.0

    def pause(self, seconds: float) -> bool:
        """Sends nothing for so long: a server that replies "too many" means all requests.

        Returns:
          Whether that begins a pause, or makes the present one much longer.
        """
        until = time.monotonic() + seconds
        longer = until > max(self._paused_until, time.monotonic()) + 0.5 * seconds
        self._paused_until = max(self._paused_until, until)
        return longer

    async def acquire(self, tokens: int) -> None:
        """Waits until a request of `tokens` may be sent."""
        # The turn in the queue is taken first, so that many waiters keep the rate without a lock.
        now, start = time.monotonic(), 0.0
        for i, (rate, amount) in enumerate(zip(self._rates, (1, tokens))):
            if rate > 0:
                at = max(self._next[i], now - 1.0 if i else now)
                self._next[i] = at + amount / rate
                start = max(start, at)
        while True:
            wait = max(start, self._paused_until) - time.monotonic()
            if wait <= 0:
                return
            await asyncio.sleep(wait)


LONGEST_WAIT = 300.0  # Seconds that a server is waited for at its own request; it may ask for days.


def backoff(attempt: int, retry_after: float | None, *, base: float = 1.0, longest: float = 60.0) -> float:
    """Seconds to wait before the next try (`attempt` counts from 0).

    What the server asks for counts, up to LONGEST_WAIT and with a little spread; otherwise the time doubles, with full
    jitter, so that many clients do not come back together.
    """
    if retry_after is not None:
        return min(retry_after, LONGEST_WAIT) * (1 + 0.1 * random.random())
    return min(longest, base * 2 ** attempt) * (0.5 + 0.5 * random.random())


def parse_retry_after(text: str | None) -> float | None:
    """Seconds that a Retry-After header asks for (a number, "13s", or an HTTP date), or None."""
    if not text:
        return None
    text = text.strip()
    try:
        return max(0.0, float(text.removesuffix("s")))
    except ValueError:
        pass
    try:
        return max(0.0, email.utils.parsedate_to_datetime(text).timestamp() - time.time())
    except (TypeError, ValueError, OverflowError, IndexError):
        return None
