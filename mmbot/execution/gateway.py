"""The order manager's way to the venue: framed requests on warm connections, written before the call returns.

Owns: two connection pools, one for posts and one for cancels, so that an answer that is late never keeps a cancel from leaving.
Called by: the order manager and the shutdown. Can go wrong: no free connection (`http1.NotSent`, nothing was written). In a dry run this is the last door,
and it is shut: no order passes, whoever asks.
"""

from asyncio import Future
from collections.abc import Sequence

from mmbot.execution.http1 import ConnectionPool, DryLine, NotSent
from mmbot.execution.wire import Requests


class Gateway:
    """``t_send_ns`` is the stamp of the last request that was written (CLOCK_MONOTONIC)."""

    def __init__(self, requests: Requests, posts: ConnectionPool, cancels: ConnectionPool, dry_run: bool = False):
        self.requests, self.posts, self.cancels, self.dry_run = requests, posts, cancels, dry_run
        self.t_send_ns = 0
        self._dry = DryLine()

    @property
    def can_post(self) -> bool:
        """Whether a POST could be written now."""
        return self.posts.can_send

    @property
    def can_cancel(self) -> bool:
        """Whether a cancel could be written now, even after one POST."""
        return self.cancels.can_send or self.posts.free > 1

    def post(self, bodies: Sequence[bytes], timestamp_s: int) -> Future:
        """POST /order for one body, POST /orders for up to 15. The future gives an `http1.HttpAnswer`. Errors: NotSent."""
        if self.dry_run:
            raise NotSent("a dry run sends no orders")
        requests = self.requests
        data = requests.post_order(bodies[0], timestamp_s) if len(bodies) == 1 else requests.post_orders(bodies, timestamp_s)
        future = self.posts.send_now(data)
        self.t_send_ns = self.posts.t_send_ns
        return future

    def cancel(self, order_ids: Sequence[str], timestamp_s: int) -> Future:
        """DELETE /orders; on a post connection when no cancel connection is free. Errors: NotSent."""
        return self._send_cancel(self.requests.cancel_orders(order_ids, timestamp_s))

    def cancel_all(self, timestamp_s: int) -> Future:
        """DELETE /cancel-all. Errors: NotSent."""
        return self._send_cancel(self.requests.cancel_all(timestamp_s))

    def _send_cancel(self, data: bytes) -> Future:
        try:
            future, pool = self.cancels.send_now(data), self.cancels
        except NotSent:
            future, pool = self.posts.send_now(data), self.posts
        self.t_send_ns = pool.t_send_ns
        return future

    def ping(self) -> Future:
        """GET /ok on a cancel connection, only to measure the way there and back. Errors: NotSent."""
        return self.cancels.send_now(self.requests.get_public("/ok"))

    def rehearse(self, bodies: Sequence[bytes], order_ids: Sequence[str], timestamp_s: int) -> int:
        """Frame a POST and a cancel and throw them away, and write as many bytes to the dry line; returns their number."""
        size = len(self.requests.post_orders(bodies, timestamp_s)) + len(self.requests.cancel_orders(order_ids, timestamp_s))
        self._dry.write(size)
        return size

    async def start(self, wait_s: float = 0.0) -> None:
        """Open the connections in the background; with ``wait_s`` wait until each pool has one. Errors: UserError."""
        await self.posts.start(1, wait_s)
        await self.cancels.start(1, wait_s)

    async def open_dry_line(self) -> None:
        """Let rehearsals go through the kernel, too. Errors: OSError, TimeoutError; then they do not, and nothing else changes."""
        await self._dry.open()

    async def close(self) -> None:
        """Drop the connections."""
        self._dry.close()
        await self.posts.close()
        await self.cancels.close()
