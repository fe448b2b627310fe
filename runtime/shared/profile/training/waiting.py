"""asyncio: tasks, queues, timeouts, locks, streams of values."""

import asyncio
import contextvars
from contextlib import AsyncExitStack, asynccontextmanager

request = contextvars.ContextVar("request", default=0)


@asynccontextmanager
async def opened(name, log):
    log.append(f"+{name}")
    try:
        yield name
    finally:
        log.append(f"-{name}")


async def numbers(count):
    for n in range(count):
        if n % 8 == 0:
            await asyncio.sleep(0)
        yield n


async def fetched(n, limit, log):
    request.set(n)
    async with limit, opened(n, log):
        await asyncio.sleep(0)
        if n % 13 == 5:
            raise LookupError(n)
        return {"n": n, "request": request.get(), "squares": [x * x async for x in numbers(n % 10)]}


async def worker(inbox, outbox):
    while (item := await inbox.get()) is not None:
        await outbox.put((item, item * 2))
        inbox.task_done()


async def main():
    limit, log = asyncio.Semaphore(8), []
    results = await asyncio.gather(*(fetched(n, limit, log) for n in range(150)), return_exceptions=True)
    failed = [r for r in results if isinstance(r, Exception)]
    inbox, outbox = asyncio.Queue(16), asyncio.Queue()
    async with asyncio.TaskGroup() as group:
        workers = [group.create_task(worker(inbox, outbox)) for _ in range(4)]
        for n in range(300):
            await inbox.put(n)
        await inbox.join()
        for _ in workers:
            await inbox.put(None)
    total = 0
    while not outbox.empty():
        total += outbox.get_nowait()[1]
    lock, event, future = asyncio.Lock(), asyncio.Event(), asyncio.get_running_loop().create_future()
    asyncio.get_running_loop().call_soon(future.set_result, 7)
    async with AsyncExitStack() as stack:
        for n in range(20):
            await stack.enter_async_context(opened(n, log))
        async with lock:
            event.set()
            await event.wait()
    try:
        await asyncio.wait_for(asyncio.Event().wait(), 0.001)
    except TimeoutError:
        total += await future
    done, waiting = await asyncio.wait([asyncio.create_task(asyncio.sleep(0, n)) for n in range(20)])
    assert not waiting
    return total + len(failed) + len(done) + len(log)


for _ in range(30):
    asyncio.run(main())
