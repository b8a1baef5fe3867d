"""How large a table may be: refused with what to do before the memory is asked for."""

from __future__ import annotations

from bnnverify.errors import ResourceLimitError

MOST_BYTES = 2**30  # of one table


def require_memory(entries: int, what: str, remedy: str) -> None:
    """Refuses a table of more than `MOST_BYTES`, at 8 bytes an entry.

    Raises:
        ResourceLimitError: It is larger.

    >>> require_memory(10**6, "a row", "Sample chips.")
    >>> require_memory(10**12, "a row of integers", "Sample chips.")
    Traceback (most recent call last):
    ...
    bnnverify.errors.ResourceLimitError: a row of integers needs 7450.6 GiB, expected at most 1 GiB. Sample chips.
    """
    if 8 * entries > MOST_BYTES:
        raise ResourceLimitError(
            f"{what} needs {8 * entries / 2**30:.1f} GiB, expected at most {MOST_BYTES // 2**30} GiB. {remedy}"
        )


def require_law(total: int) -> None:
    """Refuses the law of a row of integer inputs whose absolute values add up to `total`, if it is too large.

    Raises:
        ResourceLimitError: More than `MOST_BYTES`.
    """
    what = f"the law of a row whose integer inputs add up to {total}"
    require_memory(total + 1, what, "Take inputs of fewer levels, or sample chips with sample_errors (--samples N).")
