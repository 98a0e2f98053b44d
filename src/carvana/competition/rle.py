"""Masks to run lengths and back.

A run-length string is `start length start length ...` over the mask read row by row, pixels
numbered from 1 (the competition's format).
"""

import numpy as np

_MOST = 2**40  # beyond any picture; keeps start + length within int64


def encode(mask: np.ndarray) -> str:
    """Encode a mask.

    Args:
        mask: (height, width), bool or integers; anything but 0 is foreground.

    Returns:
        The run-length string, "" for an empty mask. Runs continue across the end of a row.

    Raises:
        ValueError: it holds fractions, as probabilities do, which need a threshold first.
    """
    mask = np.asarray(mask)
    flat = mask.astype(bool).ravel()
    if mask.dtype.kind == "f" and not (mask.ravel() == flat).all():
        raise ValueError("a mask holds 0 and 1; compare probabilities with a threshold first")
    # Where a pixel differs from the one before it. Background is assumed outside the picture, so
    # that runs at the first and the last pixel count too.
    edges = np.flatnonzero(np.diff(flat, prepend=False, append=False))
    starts, ends = edges[0::2], edges[1::2]
    pairs = np.stack((starts + 1, ends - starts), axis=1)
    return " ".join(map(str, pairs.ravel().tolist()))


def parse(runs: str) -> np.ndarray:
    """Parse a run-length string.

    Returns:
        (count, 2) int64: start (from 1) and length of each run.

    Raises:
        ValueError: an odd count of numbers, one beyond any picture, or something that is not a
            whole number.
    """
    digits = runs.replace(" ", "")
    if not digits:
        return np.empty((0, 2), np.int64)
    if not (digits.isascii() and digits.isdigit()):
        raise ValueError("something that is not a whole number")
    numbers = np.fromstring(runs, dtype=np.int64, sep=" ")  # ten times faster than split
    if numbers.size % 2:
        raise ValueError(f"an odd count of numbers ({numbers.size})")
    if numbers.size and numbers.max() > _MOST:
        raise ValueError(f"a number above {_MOST}")
    return numbers.reshape(-1, 2)


def decode(runs: str, height: int, width: int) -> np.ndarray:
    """Decode a run-length string.

    Returns:
        (height, width) bool.

    Raises:
        ValueError: not run lengths (see `parse`), or a run outside the picture.
    """
    pairs = parse(runs)
    starts, ends = pairs[:, 0] - 1, pairs.sum(axis=1) - 1
    if pairs.size and (starts.min() < 0 or ends.max() > height * width):
        raise ValueError(f"a run lies outside {height}x{width} pixels")
    mask = np.zeros(height * width, dtype=bool)
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        mask[start:end] = True
    return mask.reshape(height, width)
