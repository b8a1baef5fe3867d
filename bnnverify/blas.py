"""One thread for numpy's matrix products.

Products of the small matrices of this package lose more by waiting for each other's threads than they gain, most of all
where cores are shared; and who asks for several processes wants one thread in each.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cache
from typing import Any


@cache
def _controller() -> Any:
    """The libraries that are loaded, looked up once."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def one_blas_thread() -> AbstractContextManager[Any]:
    """A context in which matrix products take one core."""
    limited: AbstractContextManager[Any] = _controller().limit(limits=1, user_api="blas")
    return limited
