"""Which item stands at a position of an endless stream: shuffled anew in every epoch, several parts mixed by weights.

All of it is a function of (key, position), computed for the positions of a whole batch at once. Nothing is counted
from the start and nothing is kept: a resumed run needs only its step, and a million items cost no memory.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

_ROUNDS = 6
_FEW = 16  # Rows that are walked one by one in less time than all together.
_WORD = 2**64 - 1
_SHARES = 20  # Shares of a mixture are counted in parts of 2**20; positions below 2**43 stay exact with them.


def _mix(values: np.ndarray) -> np.ndarray:
    """A hash of uint64 [...] (the finaliser of splitmix64)."""
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return values ^ (values >> np.uint64(31))


def shuffled(positions: np.ndarray, length: int, key: int) -> np.ndarray:
    """Rows at positions of an endless stream that holds each of `length` rows once an epoch, in an order of its own.

    A Feistel network over the next power of four is a permutation whatever its round function; a number beyond the
    rows is sent through it again until it is one of them, which permutes the rows.

    Args:
      positions: int64 [n], not negative; length: rows, at least 1; key: 64 bits.

    Returns:
      int64 [n], each within [0, length).
    """
    epoch, rows = np.divmod(positions.astype(np.uint64), np.uint64(length))
    half = np.uint64(max(1, ((length - 1).bit_length() + 1) // 2))
    mask = (np.uint64(1) << half) - np.uint64(1)
    rounds = np.arange(_ROUNDS, dtype=np.uint64)[:, None]
    keys = _mix(_mix(epoch * np.uint64(_ROUNDS) + rounds) ^ np.uint64(key))
    walking = np.arange(len(rows))
    while len(walking) > _FEW:
        left, right = rows[walking] >> half, rows[walking] & mask
        for of_round in keys[:, walking]:
            left, right = right, left ^ (_mix(right ^ of_round) & mask)
        rows[walking] = left << half | right
        walking = walking[rows[walking] >= length]
    for position, own_keys in zip(walking.tolist(), keys[:, walking].T.tolist(), strict=True):
        rows[position] = _walk(int(rows[position]), length, own_keys, int(half))
    return rows.astype(np.int64)


def _walk(row: int, length: int, keys: Sequence[int], half: int) -> int:
    """What becomes of one row in `shuffled`, whose arrays are slow for a few."""
    mask = (1 << half) - 1
    while True:
        left, right = row >> half, row & mask
        for key in keys:  # `_mix` of (right ^ key).
            value = right ^ key
            value = (value ^ (value >> 30)) * 0xBF58476D1CE4E5B9 & _WORD
            value = (value ^ (value >> 27)) * 0x94D049BB133111EB & _WORD
            left, right = right, left ^ ((value ^ (value >> 31)) & mask)
        row = left << half | right
        if row < length:
            return row


def mixed(positions: np.ndarray, weights: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """Which part stands at each position, and the position in that part's own stream.

    Of the first n positions, every part has its share but for at most one for each part: mixtures are even, not drawn.

    Args:
      positions: int64 [n], not negative; weights: of the parts, positive.

    Returns:
      (part int64 [n], position in its stream int64 [n]); each part's positions are 0, 1, 2, ... without a gap.
    """
    part, position = np.zeros(len(positions), np.int64), positions.astype(np.int64)
    left = np.arange(len(positions))  # Those not given to a part yet. The last part takes its share of them first.
    for number in range(len(weights) - 1, 0, -1):
        share = round(weights[number] / sum(weights[:number + 1]) * 2**_SHARES)
        share = min(max(share, 1), 2**_SHARES - 1)
        before, after = position[left] * share >> _SHARES, (position[left] + 1) * share >> _SHARES
        taken = after > before
        part[left[taken]] = number
        position[left] = np.where(taken, before, position[left] - before)
        left = left[~taken]
    return part, position


def generators(positions: np.ndarray, key: int) -> Iterator[np.random.Generator]:
    """A random generator for each position, that depends on (key, position) alone.

    It is the same object each time, set to the next position: use it before asking for the next one.
    """
    bits = np.random.Philox(key=key)
    generator, state = np.random.Generator(bits), bits.state
    for position in positions.tolist():
        state["state"]["counter"][:] = 0, 0, position, 0  # 2**128 draws lie between two positions.
        bits.state = state
        yield generator
