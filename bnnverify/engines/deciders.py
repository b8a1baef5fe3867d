"""Decider: what the complete engines that decide and do not count have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

from bnnverify.cardinality import grid_region, region_input
from bnnverify.cardinality.compile import Settled
from bnnverify.engines.base import UNLIMITED, Clock, Limits, Monitor, replayed
from bnnverify.errors import ResourceLimitError, UnsupportedError
from bnnverify.query import Query
from bnnverify.results import Count, Decision, Run, Verdict


class Decider(ABC):
    """An engine that looks for values of an instance's inputs, or proves that there are none."""

    __slots__ = ()

    @property
    @abstractmethod
    def name(self) -> str:
        """Name on the command line."""

    @abstractmethod
    def _search(
        self, query: Query, settled: Settled | None, clock: Clock, limits: Limits, statistics: dict[str, Any]
    ) -> Sequence[bool] | None:
        """Values of the instance's inputs that make an adversarial input; None if there are none.

        Raises:
            ResourceLimitError: The clock ran out.
        """

    def decide(
        self,
        query: Query,
        *,
        limits: Limits = UNLIMITED,
        monitor: Monitor | None = None,
        settled: Settled | None = None,
    ) -> Decision:
        """Is there an adversarial input in the region?

        Args:
            query: Any query over signs or over a box of integers.
            limits: Time, and for cpsat threads (1 unless more are allowed); a limit that is reached gives UNKNOWN with
                the reason. Nodes and memory do not apply.
            monitor: Who may stop the work.
            settled: What is proved of each hidden block, see `compile_network`.

        Raises:
            UnsupportedError: The region is a real box, or for cpsat the scores are too large.
        """
        clock, region = Clock(limits.seconds, monitor), grid_region(query)
        statistics: dict[str, Any] = {}
        try:
            values = self._search(query, settled, clock, limits, statistics)
        except ResourceLimitError as limit:
            return Decision(Verdict.UNKNOWN, Run(self.name, clock.elapsed, str(limit), statistics))
        if values is None:
            return Decision(Verdict.ROBUST, Run(self.name, clock.elapsed, "", statistics))
        x, predicted = replayed(query, region_input(region, values), self.name)
        return Decision(Verdict.NOT_ROBUST, Run(self.name, clock.elapsed, "", statistics), x, predicted)

    def count(self, query: Query, *, limits: Limits = UNLIMITED, monitor: Monitor | None = None) -> Count:
        """Refused: other engines count.

        Raises:
            UnsupportedError: Always.
        """
        raise UnsupportedError(f"{self.name} decides and does not count. Count with another engine, such as sat.")
