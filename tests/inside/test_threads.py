"""Threads of a guest, which has one: each program gets the result that real threads give, or is refused in words."""

from __future__ import annotations

import textwrap
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from wasm_sandbox import CodeResult, HostFunction, Limits, Paused, Sandbox, Tool, run_code, run_tool

REFUSED = "would wait for another"


def printed(code: str, **options: Any) -> list[str]:
    """Lines that a program prints, which succeeds."""
    result = run_code(textwrap.dedent(code), **options)
    assert result.error is None, result.error
    return "".join(result.stdout or []).splitlines()


def refusal(code: str, said: str = REFUSED) -> CodeResult:
    """Result of a program that ends by a RuntimeError in words, long before its deadline."""
    result = run_code(textwrap.dedent(code), limits=Limits(timeout_seconds=60))
    assert result.error is not None
    assert (result.error.exception_name, said in result.error.message) == ("RuntimeError", True), result.error
    return result


RIGHT = {
    "a pool's map": """
        from concurrent.futures import ThreadPoolExecutor
        with ThreadPoolExecutor(4) as p: print(list(p.map(lambda x: x * x, range(5))))
        -- [0, 1, 4, 9, 16]""",
    "as_completed": """
        from concurrent.futures import *
        with ThreadPoolExecutor(4) as p:
            print(sorted(f.result() for f in as_completed([p.submit(pow, 2, i) for i in range(4)])))
        -- [1, 2, 4, 8]""",
    "an exception in a pool": """
        from concurrent.futures import *
        with ThreadPoolExecutor() as p:
            try: p.submit(lambda: 1 / 0).result()
            except ZeroDivisionError as e: print(e)
        -- division by zero""",
    "threads that share a lock": """
        import threading
        n, l = 0, threading.Lock()
        def f():
            global n
            for _ in range(100):
                with l: n += 1
        ts = [threading.Thread(target=f) for _ in range(4)]
        [t.start() for t in ts]; [t.join() for t in ts]; print(n)
        -- 400""",
    "a producer that is started first": """
        import threading, queue
        q = queue.Queue()
        threading.Thread(target=lambda: [q.put(i) for i in range(3)]).start(); print([q.get() for _ in range(3)])
        -- [0, 1, 2]""",
    "an event that the thread sets": """
        import threading
        e = threading.Event()
        threading.Thread(target=e.set).start(); print(e.wait(1))
        -- True""",
    "to_thread in a gather": """
        import asyncio
        print(await asyncio.gather(*[asyncio.to_thread(pow, 2, i) for i in range(3)]))
        -- [1, 2, 4]""",
    "what is a thread's own": """
        import threading
        l = threading.local(); l.x = 1
        def f(): print(hasattr(l, 'x'), threading.current_thread().name, threading.get_ident() == main)
        main = threading.get_ident()
        threading.Thread(target=f, name='t1').start(); print(l.x, threading.current_thread().name)
        -- False t1 False
        -- 1 MainThread""",
    "a local with an __init__": """
        import threading
        class Own(threading.local):
            def __init__(self, n): self.n = n
        own = Own(5); own.n = 6
        def f(): print(own.n); own.n = 7; threading.Thread(target=lambda: print(own.n)).start(); print(own.n)
        threading.Thread(target=f).start(); print(own.n)
        -- 5
        -- 5
        -- 7
        -- 6""",
    "a local that a thread makes": """
        import threading
        made = []
        def f():
            made.append(threading.local()); made[0].x = 1
        threading.Thread(target=f).start(); print(hasattr(made[0], 'x'))
        -- False""",
    "context variables": """
        import threading, contextvars, asyncio
        v = contextvars.ContextVar('v', default=0); v.set(1)
        def f(): print(v.get()); v.set(5)
        threading.Thread(target=f).start(); asyncio.run(asyncio.to_thread(f)); print(v.get())
        -- 0
        -- 1
        -- 1""",
    "a pool's threads": """
        import threading
        from concurrent.futures import ThreadPoolExecutor
        own = threading.local()
        def init(): own.count = 0
        def f():
            own.count += 1
            return own.count, threading.current_thread().name
        with ThreadPoolExecutor(2, 'w', init) as p: print([p.submit(f).result() for _ in (1, 2)], hasattr(own, 'count'))
        -- [(1, 'w_0'), (2, 'w_0')] False""",
    "an initializer that fails": """
        from concurrent.futures import *
        with ThreadPoolExecutor(2, 'w', lambda: 1 / 0) as p:
            print(type(p.submit(abs, 1).exception()).__name__)
            try: p.submit(abs, 1)
            except BrokenExecutor: print('broken')
        -- BrokenThreadPool
        -- broken""",
    "a pool that is shut down": """
        from concurrent.futures import *
        p = ThreadPoolExecutor(); f = p.submit(abs, -1); p.shutdown(); print(f.result(), f.done(), f.cancel())
        try: p.submit(abs, 1)
        except RuntimeError as e: print(e)
        -- 1 True False
        -- cannot schedule new futures after shutdown""",
    "wait, and callbacks": """
        from concurrent.futures import *
        with ThreadPoolExecutor() as p:
            fs = [p.submit(abs, i) for i in (1, -2)]
            fs[0].add_done_callback(lambda f: print('done', f.result()))
            print(len(wait(fs).done), wait(fs, return_when=FIRST_EXCEPTION).not_done)
        -- done 1
        -- 2 set()""",
    "a task of a pool inside another": """
        from concurrent.futures import *
        with ThreadPoolExecutor(2) as p: print(p.submit(lambda: p.submit(abs, -1).result() + 1).result())
        -- 2""",
    "run_in_executor": """
        import asyncio, concurrent.futures
        loop = asyncio.get_running_loop()
        with concurrent.futures.ThreadPoolExecutor() as p: print(await loop.run_in_executor(p, pow, 2, 3))
        print(await loop.run_in_executor(None, lambda: asyncio.run(asyncio.sleep(0, 'an event loop of its own'))))
        -- 8
        -- an event loop of its own""",
    "multiprocessing.pool.ThreadPool": """
        from multiprocessing.pool import ThreadPool
        with ThreadPool(3) as p:
            print(p.map(abs, [-1, 2]), p.apply(pow, (2, 3)), list(p.imap(str, range(2))), p.starmap(pow, [(2, 2)]))
            print(sorted(p.imap_unordered(abs, [-1])), p.map_async(str, [1]).get(1))
            failed = p.apply_async(lambda: 1 / 0, error_callback=print)
            print(failed.ready(), failed.successful())
            try: p.map(lambda n: 1 / n, [1, 0])
            except ZeroDivisionError: print('raised')
        p.join()
        try: p.apply(abs, (1,))
        except ValueError as e: print(e)
        -- [1, 2] 8 ['0', '1'] [4]
        -- [1] ['1']
        -- division by zero
        -- True False
        -- raised
        -- Pool not running""",
    "multiprocessing.dummy": """
        from multiprocessing.dummy import Pool, Process
        p = Pool(2); print(p.map(abs, [-1])); p.close(); p.join()
        import multiprocessing.pool; print(isinstance(p, multiprocessing.pool.ThreadPool))
        t = Process(target=print, args=('ran',)); t.start(); t.join()
        -- [1]
        -- True
        -- ran""",
    "an exception in a thread": """
        import threading, sys
        threading.excepthook = lambda args: print(args.exc_type.__name__, args.thread.name)
        t = threading.Thread(target=lambda: 1 / 0); t.start(); t.join(); print(t.is_alive())
        threading.Thread(target=sys.exit).start()
        -- ZeroDivisionError Thread-1 (<lambda>)
        -- False
        -- SystemExit Thread-2 (exit)""",
    "a class of threads": """
        import threading
        class T(threading.Thread):
            def run(self): self.found = threading.enumerate()
        t = T(); t.start(); print(len(t.found), threading.active_count(), t.is_alive(), t.ident is not None)
        try: t.start()
        except RuntimeError as e: print(e)
        -- 2 1 False True
        -- threads can only be started once""",
    "_thread": """
        import _thread
        found = []
        ident = _thread.start_new_thread(lambda n: found.append((n, _thread.get_ident())), (1,))
        print(found == [(1, ident)], ident != _thread.get_ident())
        -- True True""",
    "a thread that sleeps": """
        import threading, time
        found = []
        def f(n): time.sleep(.001); found.append(n)
        ts = [threading.Thread(target=f, args=(n,)) for n in range(3)]
        [t.start() for t in ts]; [t.join() for t in ts]; print(found)
        -- [0, 1, 2]""",
    "a timer without an interval": """
        import threading
        t = threading.Timer(0, print, ('fired',)); t.start(); t.join()
        -- fired""",
    "waits that have an end": """
        import queue, threading, concurrent.futures
        l = threading.Lock()
        with l: print(l.acquire(timeout=.001), l.acquire(False), threading.Event().wait(.001))
        for get in (queue.Queue().get, queue.SimpleQueue().get):
            try: get(timeout=.001)
            except queue.Empty: print('empty')
        try: concurrent.futures.Future().result(.001)
        except TimeoutError: print('late')
        -- False False False
        -- empty
        -- empty
        -- late""",
    "a thread that is started inside another and refused there": """
        import threading, queue
        def f():
            try: threading.Thread(target=queue.Queue().get).start()
            except RuntimeError: print('did without')
        threading.Thread(target=f).start(); print('end')
        -- did without
        -- end""",
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_needs_no_other_thread_is_right(name: str) -> None:
    code, *lines = RIGHT[name].split("\n        -- ")
    assert printed(code) == lines


REFUSALS = {
    "a consumer that is started first": """
        import threading, queue
        q, out = queue.Queue(), []
        def c():
            while (x := q.get()) is not None: out.append(x)
        t = threading.Thread(target=c); t.start()
        for i in range(3): q.put(i)
        q.put(None); t.join(); print(out)""",
    "daemon workers": """
        import threading, queue
        q, out = queue.Queue(), []
        def w():
            while True:
                x = q.get(); out.append(x); q.task_done()
        for i in range(3): q.put(i)
        for _ in range(2): threading.Thread(target=w, daemon=True).start()
        q.join(); print(out)""",
    "daemon workers that are started first": """
        import threading, queue
        q, out = queue.Queue(), []
        def w():
            while True:
                x = q.get(); out.append(x); q.task_done()
        threading.Thread(target=w, daemon=True).start()
        for i in range(3): q.put(i)
        q.join(); print(out)""",
    "an event that the main thread sets": """
        import threading
        e = threading.Event()
        t = threading.Thread(target=lambda: (e.wait(), print('woke')))
        t.start(); e.set(); t.join(); print('end')""",
    "a timer": "import threading\nt = threading.Timer(.05, print, ('fired',)); t.start(); print('main'); t.join()",
    "a heartbeat": """
        import threading
        stop = threading.Event()
        def beat():
            while not stop.wait(.05): pass
        t = threading.Thread(target=beat, daemon=True); t.start(); print('work'); stop.set(); t.join()""",
    "a heartbeat that sleeps": """
        import threading, time
        def beat():
            while True: time.sleep(.05)
        threading.Thread(target=beat, daemon=True).start(); print('work')""",
    "a barrier": """
        import threading
        b = threading.Barrier(2)
        ts = [threading.Thread(target=b.wait) for _ in range(2)]
        [t.start() for t in ts]; print('through')""",
    "a consumer with a timeout": """
        import threading, queue
        q = queue.Queue()
        def c():
            try: print(q.get(timeout=.05))
            except queue.Empty: print('empty')
        threading.Thread(target=c).start(); q.put(1)""",
    "a thread that swallows the refusal": """
        import threading, queue
        def c():
            try: queue.Queue().get()
            except BaseException: pass
        threading.Thread(target=c).start(); print('silent')""",
    "a thread inside a thread": """
        import threading, queue
        threading.Thread(target=lambda: threading.Thread(target=queue.Queue().get).start()).start(); print('silent')""",
    "a task of a pool": """
        import queue
        from concurrent.futures import *
        q, out = queue.Queue(), []
        with ThreadPoolExecutor() as p:
            p.submit(lambda: out.append(q.get())); q.put(1)
        print(out)""",
    "a task of a ThreadPool": """
        import queue
        from multiprocessing.pool import ThreadPool
        ThreadPool(2).apply_async(queue.Queue().get); print('silent')""",
    "a thread in a task of a pool": """
        import queue, threading
        from concurrent.futures import *
        ThreadPoolExecutor().submit(lambda: threading.Thread(target=queue.Queue().get).start()); print('silent')""",
    "an initializer of a pool": """
        import queue
        from concurrent.futures import *
        ThreadPoolExecutor(initializer=queue.Queue().get).submit(abs, 1); print('silent')""",
    "to_thread": "import asyncio, queue\nawait asyncio.to_thread(queue.Queue().get)",
    "an event loop of a thread": """
        import asyncio, threading
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, daemon=True).start()
        print(asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 1), loop).result())""",
    "a coroutine on the loop of the main thread": """
        import asyncio
        async def main():
            loop = asyncio.get_running_loop()
            await asyncio.to_thread(lambda: asyncio.run_coroutine_threadsafe(asyncio.sleep(0, 1), loop).result())
        asyncio.run(main())""",
    "a lock of the main thread": """
        import threading
        l = threading.Lock()
        with l: threading.Thread(target=l.acquire).start(); print('silent')""",
    "a reentrant lock of the main thread": """
        import threading
        l = threading.RLock()
        with l: threading.Thread(target=l.acquire).start(); print('silent')""",
    "a thread that joins the main one": """
        import threading
        threading.Thread(target=threading.main_thread().join).start()""",
    "a thread of _thread": "import _thread, queue\n_thread.start_new_thread(queue.SimpleQueue().get, ())",
}


@pytest.mark.parametrize("name", REFUSALS)
def test_a_thread_that_would_wait_for_another_is_refused_by_the_call_that_starts_it(name: str) -> None:
    result = refusal(REFUSALS[name])
    assert "silent" not in "".join(result.stdout or [])


DEADLOCKS = [
    "import queue; queue.Queue().get()",
    "import queue; queue.LifoQueue().get()",
    "import queue; queue.SimpleQueue().get()",
    "import queue; q = queue.Queue(1); q.put(1); q.put(1)",
    "import queue; q = queue.Queue(); q.put(1); q.join()",
    "import threading; l = threading.Lock(); l.acquire(); l.acquire()",
    "import threading; l = threading.Lock(); l.acquire()\nwith l: pass",
    "import threading; l = threading.Lock(); threading.Thread(target=l.acquire).start(); l.acquire()",
    "import threading; l = threading.RLock(); threading.Thread(target=l.acquire).start(); l.acquire()",
    "import _thread; l = _thread.allocate_lock(); l.acquire(); l.acquire()",
    "import threading; c = threading.Condition()\nwith c: c.wait()",
    "import threading; c = threading.Condition()\nwith c: c.wait_for(lambda: False)",
    "import threading; threading.Event().wait()",
    "import threading; threading.Semaphore(0).acquire()",
    "import threading; threading.BoundedSemaphore(1).acquire(); s = threading.Semaphore(1); s.acquire(); s.acquire()",
    "import threading; threading.Barrier(2).wait()",
    "import threading; threading.current_thread().join()",
    "import concurrent.futures; concurrent.futures.Future().result()",
    "import concurrent.futures; concurrent.futures.Future().exception()",
    "import concurrent.futures; concurrent.futures.wait([concurrent.futures.Future()])",
    "import concurrent.futures; list(concurrent.futures.as_completed([concurrent.futures.Future()]))",
    "import asyncio; asyncio.run(asyncio.Event().wait())",
]


@pytest.mark.parametrize("code", DEADLOCKS)
def test_a_wait_that_can_never_end_is_a_deadlock_in_the_tools_line(code: str) -> None:
    result = refusal(code, "deadlock")
    assert result.error is not None
    assert result.error.traceback is not None
    assert code.splitlines()[-1] in result.error.traceback
    body = textwrap.indent(code, "    ")
    error = run_tool(Tool.from_source(f"def f():\n{body}")).error
    assert error is not None
    assert "deadlock" in error.message


def test_a_deadlock_can_be_caught() -> None:
    assert printed("import queue\ntry: queue.Queue().get()\nexcept RuntimeError: print('went on')") == ["went on"]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import threading; threading.Lock().release()", "release unlocked lock"),
        ("import threading; threading.RLock().release()", "cannot release un-acquired lock"),
        ("import threading; threading.Lock().acquire(False, 1)", "can't specify a timeout for a non-blocking call"),
        ("import threading; threading.Lock().acquire(True, -2)", "timeout value must be a non-negative number"),
        ("import threading; threading.RLock().acquire(True, 1e20)", "timeout value is too large"),
        ("import threading, copy; copy.copy(threading.Lock())", "cannot pickle '_thread.lock' object"),
        ("import threading, copy; copy.copy(threading.RLock())", "cannot pickle '_thread.RLock' object"),
        ("import threading; threading.local(1)", "Initialization arguments are not supported"),
        ("import queue; queue.SimpleQueue().get(timeout=-1)", "'timeout' must be a non-negative number"),
        ("from multiprocessing.pool import ThreadPool; ThreadPool(0)", "Number of processes must be at least 1"),
        ("from multiprocessing.pool import ThreadPool; ThreadPool(1).join()", "Pool is still running"),
    ],
)
def test_misuse_says_what_the_interpreter_says(code: str, message: str) -> None:
    error = run_code(code).error
    assert error is not None
    assert error.message == message


def test_threads_of_a_run_leave_nothing_to_the_next() -> None:
    code = "import threading; t = threading.Thread(target=str); t.start(); (t.name, threading.active_count())"
    assert [run_code(code).value for _ in range(2)] == [("Thread-1 (str)", 1)] * 2


APPROVE = HostFunction.deferred("approve", question=str, returns=bool)
OWN_LOOP = """
import asyncio
async def other(): return await {awaited}
await asyncio.gather({calls}asyncio.to_thread(lambda: asyncio.run(other())))
"""


def test_a_thread_has_an_event_loop_of_its_own_while_the_main_one_waits_for_somebody() -> None:
    with Sandbox(functions=[APPROVE]).session() as session:
        paused = session.start(OWN_LOOP.format(awaited="asyncio.sleep(.001, 'slept')", calls="approve('a'), "))
        assert isinstance(paused, Paused)
        (call,) = paused.calls
        result = paused.resume({call.id: True})
        assert isinstance(result, CodeResult)
        assert result.value == [True, "slept"]


@pytest.mark.parametrize(
    ("awaited", "calls"),
    [("asyncio.Event().wait()", "approve('a'), "), ("approve('b')", ""), ("approve('b')", "approve('a'), ")],
)
def test_no_program_is_paused_inside_a_thread(awaited: str, calls: str) -> None:
    with Sandbox(functions=[APPROVE]).session() as session:
        result = session.start(OWN_LOOP.format(awaited=awaited, calls=calls))
    assert isinstance(result, CodeResult)
    assert result.error is not None
    assert REFUSED in result.error.message


def test_pools_and_values_of_threads_are_kept_from_cell_to_cell_and_forked() -> None:
    with Sandbox().session() as session:
        session.run_code(
            "from concurrent.futures import ThreadPoolExecutor\nimport threading\nown = threading.local()\n"
            "def count():\n    own.n = getattr(own, 'n', 0) + 1\n    return own.n, threading.current_thread().name\n"
            "pool = ThreadPoolExecutor(2, 'w')"
        )
        cell = "(pool.submit(count).result(), hasattr(own, 'n'))"
        assert session.run_code(cell).value == ((1, "w_0"), False)
        with session.fork() as fork:
            assert fork.run_code(cell).value == session.run_code(cell).value == ((2, "w_0"), False)


# Programs of producers and consumers, whose result does not depend on the order in which real threads run: each is a
# list of starts and puts in some order, and what arrives in all is known beforehand.
_step = st.one_of(
    st.tuples(st.just("producer"), st.integers(0, 3)),
    st.tuples(st.just("consumer"), st.integers(0, 3)),
    st.tuples(st.just("put"), st.integers(0, 3)),
    st.tuples(st.just("take"), st.integers(0, 3)),
)
_program = st.tuples(st.lists(_step, max_size=6), st.sampled_from([0, 1, 3]), st.sampled_from(["thread", "pool"]))
_RUN = """
import queue, threading
from concurrent.futures import ThreadPoolExecutor

def run(steps, size, kind):
    q, got, produced = queue.Queue(size), [], 0
    def produce(n):
        for i in range(n): q.put(1)
    def consume(n):
        for i in range(n): got.append(q.get())
    pool, threads, futures = ThreadPoolExecutor(8), [], []
    def start(f, n):
        if kind == "pool":
            futures.append(pool.submit(f, n))
        else:
            threads.append(threading.Thread(target=f, args=(n,)))
            threads[-1].start()
    for what, n in steps:
        {"producer": lambda: start(produce, n), "consumer": lambda: start(consume, n), "put": lambda: produce(n),
         "take": lambda: consume(n)}[what]()
    [t.join() for t in threads]
    [f.result() for f in futures]
    return len(got), q.qsize()

found = []
for program in programs:
    try:
        found.append(run(*program))
    except RuntimeError as error:
        found.append(str(error))
found
"""


@settings(max_examples=8, suppress_health_check=list(HealthCheck))
@given(st.lists(_program, min_size=20, max_size=40))
def test_producers_and_consumers_are_right_or_refused(programs: list[tuple[list[tuple[str, int]], int, str]]) -> None:
    result = run_code(_RUN, {"programs": programs})
    assert result.error is None, result.error
    for (steps, size, _kind), found in zip(programs, result.value, strict=True):
        made = sum(n for what, n in steps if what in ("producer", "put"))
        taken = sum(n for what, n in steps if what in ("consumer", "take"))
        if isinstance(found, str):
            assert REFUSED in found or "deadlock" in found
        else:
            assert found == (taken, made - taken)
            assert size == 0 or made - taken <= size
    assert any(isinstance(found, tuple) for found in result.value)
