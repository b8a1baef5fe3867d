"""The region around an input that the options of -1/+1 inputs name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from bnnverify.cli.options import index_file, index_list_or_file
from bnnverify.errors import QueryError
from bnnverify.regions import FixedIndexRegion, HammingBall, Region, whole_cube


def region_of(
    center: Sequence[int],
    *,
    radius: int | None,
    free: str | None,
    hold: str | None,
    fixed: str | None,
    whole: bool,
) -> Region:
    """The region around an input that the options name.

    Args:
        center: The input.
        radius: Of a Hamming ball.
        free: List or file of the inputs that vary.
        hold: List or file of the inputs that stay.
        fixed: File of the inputs that vary, as BNNQuanalyst's fixed-set files list them.
        whole: All inputs of the cube.

    Raises:
        QueryError: No region or two are named, or the region does not fit the input.
    """
    n, x = len(center), tuple(center)
    limited = [name for name, text in (("--free", free), ("--hold", hold), ("--fixed", fixed)) if text is not None]
    if len(limited) + whole > 1 or (whole and radius is not None) or not (limited or whole or radius is not None):
        raise QueryError(
            "expected exactly one region: --radius R, --free LIST, --hold LIST, --fixed FILE or --whole-cube "
            "(--radius also together with --free, --hold or --fixed)."
        )
    if whole:
        return whole_cube(n, x)
    vary = _varying(n, free, hold, fixed)
    if radius is not None:
        return HammingBall(x, radius, vary)
    assert vary is not None
    return FixedIndexRegion(x, vary)


def _varying(n: int, free: str | None, hold: str | None, fixed: str | None) -> tuple[int, ...] | None:
    """The inputs that vary; None if the options leave that open."""
    if free is not None:
        return tuple(index_list_or_file(free, n, "input"))
    if hold is not None:
        kept = set(index_list_or_file(hold, n, "input"))
        return tuple(i for i in range(n) if i not in kept)
    if fixed is not None:
        if not Path(fixed).is_file():
            raise QueryError(
                f"--fixed is {fixed!r:.60}, expected the path of a fixed-set file, which lists the inputs that vary. "
                "To name inputs here, give --hold LIST (they stay) or --free LIST (they vary)."
            )
        return tuple(index_file(fixed, n, "input"))
    return None
