"""What a limit left unfinished of many images, in words."""

from __future__ import annotations

from collections.abc import Sequence

from bnnverify.results import Probability


def unfinished(stop: str, per_image: Sequence[Probability], tolerance: float, left_out: int) -> str:
    """The reason of an answer that was stopped; empty if nothing was left to do.

    Args:
        stop: What stopped it.
        per_image: Bounds for every image, those left out included.
        tolerance: Width to reach for each image.
        left_out: Images that nobody worked at; they are wider than the tolerance.

    >>> from fractions import Fraction
    >>> half, one = (Probability.interval(Fraction(0), Fraction(1, n)) for n in (2, 1))
    >>> unfinished("interrupted", [half, one], 0.5, 1)
    'interrupted; 1 of 2 images left out'
    >>> unfinished("interrupted", [half, one, one], 0.1, 1)
    'interrupted; 1 of 3 images left out, 2 wider than the tolerance'
    >>> unfinished("interrupted", [half, one], 0.1, 0)
    'interrupted; 2 of 2 images wider than the tolerance'
    >>> unfinished("interrupted", [half], 0.5, 0)
    ''
    """
    wider = sum(bounds.width > tolerance for bounds in per_image) - left_out
    parts = [
        f"{count} {words}" for count, words in ((left_out, "left out"), (wider, "wider than the tolerance")) if count
    ]
    if not parts:
        return ""
    parts[0] = parts[0].replace(" ", f" of {len(per_image)} images ", 1)
    return f"{stop}; {', '.join(parts)}"
