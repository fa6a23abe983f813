# Generated from authz/client/aio/fresh_calls.py; see `make client`.
"""Asks on a state as fresh as required, in one call or in several on monotonic states."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from copy import copy
from typing import Any, TypeVar

import grpc

from authz.client.arguments import as_text
from authz.client.errors import CallError
from authz.client.sync.calls import Calls
from authz.client.sync.transport import Method
from authz.domain.decisions import MAX_BATCH_ITEMS
from authz.domain.errors import ErrorReason, malformed

T = TypeVar("T")


class FreshCalls:
    """Sends questions. Each sees the last write of the client."""

    _calls: Calls

    def _pages(
        self, method: Method[T], request: Any, at_least_as_fresh: str, fully_consistent: bool
    ) -> Iterator[T]:
        """Every page of a list, each on a state that is not older than the one before."""
        while True:
            page: Any = self._ask(method, request, at_least_as_fresh, fully_consistent)
            yield page
            if not page.next_page_token:
                return
            request.page_token = page.next_page_token
            at_least_as_fresh, fully_consistent = page.checked_at.token, False

    def _batches(
        self,
        method: Method[Any],
        items: Sequence[T],
        request_of: Callable[[Sequence[T]], Any],
        at_least_as_fresh: str,
        fully_consistent: bool,
    ) -> list[Any]:
        """The results for all items, in order, split over as many calls as necessary."""
        results: list[Any] = []
        for start in range(0, len(items), MAX_BATCH_ITEMS):
            part = items[start : start + MAX_BATCH_ITEMS]
            answer = self._ask(method, request_of(part), at_least_as_fresh, fully_consistent)
            if len(answer.results) != len(part):
                raise CallError(grpc.StatusCode.INTERNAL, "", "the numbers of answers and questions differ")
            results += answer.results
            at_least_as_fresh, fully_consistent = answer.checked_at.token, False
        return results

    def _ask(self, method: Method[T], request: Any, at_least_as_fresh: str, fully_consistent: bool) -> T:
        """Call a method on a state at least as fresh as a token and as the last write of this client, or on
        the last committed state."""
        if at_least_as_fresh and fully_consistent:
            raise malformed("at_least_as_fresh", "is set, and fully_consistent, too; set one of them")
        token = as_text(at_least_as_fresh, field="at_least_as_fresh") if at_least_as_fresh else ""
        least = self._calls.last_write.or_later(token)
        fresh = copy(request)  # which may be the caller's
        if fully_consistent:
            fresh.consistency.fully_consistent = True
        elif least:
            fresh.consistency.at_least_as_fresh.token = least
        try:
            return self._calls.call(method, fresh)
        except CallError as error:
            if error.reason != ErrorReason.MALFORMED_TOKEN or fully_consistent or least == token:
                raise
        # The server has another database than the one that was written to.
        self._calls.last_write.forget()
        return self._ask(method, request, at_least_as_fresh, fully_consistent)
