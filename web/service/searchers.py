"""The searcher of the index as it is now, for the event loop: what blocks runs in threads."""

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import ParamSpec, TypeVar

from retrieval.searcher import Searcher
from web.service.searcher_pool import SearcherPool

__all__ = ["Searchers", "run_in"]

P = ParamSpec("P")
R = TypeVar("R")


async def run_in(threads: ThreadPoolExecutor, call: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
    """What a call gives that runs in one of the threads."""
    return await asyncio.get_running_loop().run_in_executor(threads, functools.partial(call, *values, **named))


class Searchers:
    """Lends the searchers of a pool, and runs what reads the index in `count` threads of its own."""

    def __init__(self, pool: SearcherPool, count: int) -> None:
        self.pool = pool
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="read")

    @asynccontextmanager
    async def borrow(self) -> AsyncIterator[Searcher]:
        """Lend the searcher of the index as it is now. Raises IndexMissing if the index was deleted."""
        borrowed = self.pool.borrow()
        entering = asyncio.ensure_future(self.run(borrowed.__enter__))
        try:
            searcher = await asyncio.shield(entering)
        except asyncio.CancelledError:
            entering.add_done_callback(lambda _: borrowed.__exit__(None, None, None))
            raise
        try:
            yield searcher
        finally:
            borrowed.__exit__(None, None, None)

    async def use(self, work: Callable[[Searcher], R]) -> R:
        """What some work with a searcher of the index as it is now gives, in a thread."""
        async with self.borrow() as searcher:
            return await self.run(work, searcher)

    async def run(self, call: Callable[P, R], *values: P.args, **named: P.kwargs) -> R:
        """What a call gives, in a thread."""
        return await run_in(self._threads, call, *values, **named)

    def close(self) -> None:
        """End the threads when what they do is done. The pool stays open."""
        self._threads.shutdown(wait=True, cancel_futures=True)
