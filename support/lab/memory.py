"""How much memory a block needs at its worst moment."""

import contextlib
import gc
import sys
import threading
import tracemalloc
from collections.abc import Generator
from pathlib import Path

import psutil

SAMPLE_EVERY = 0.002  # seconds, where the kernel keeps no peak that can be reset
RESET_PEAK = "5"  # proc(5): writing 5 to clear_refs resets VmHWM, and nothing else


class PeakMemory:
    """The memory of one block. ``peak`` is the most it held above its start, in bytes."""

    def __init__(self, start: int) -> None:
        self._start = start
        self._highest = start

    @property
    def peak(self) -> int:
        """Bytes above the start at the worst moment so far; 0 if it never rose."""
        return self._highest - self._start

    def _saw(self, level: int) -> None:
        self._highest = max(self._highest, level)


class _Meter:
    """Shares one gauge of the process among the open blocks, nested or in several threads."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: list[PeakMemory] = []

    def begin(self) -> PeakMemory:
        with self.lock:
            if not self.open:
                self.switch_on()
            self.note()
            self.reset()
            memory = PeakMemory(self.level())
            self.open.append(memory)
            return memory

    def end(self, memory: PeakMemory) -> None:
        with self.lock:
            self.note()
            self.open = [other for other in self.open if other is not memory]
            if not self.open:
                self.switch_off()

    def note(self) -> None:
        highest = max(self.highest(), self.level())
        for memory in self.open:
            memory._saw(highest)

    def switch_on(self) -> None: ...

    def switch_off(self) -> None: ...

    def level(self) -> int:
        raise NotImplementedError

    def highest(self) -> int:
        raise NotImplementedError

    def reset(self) -> None:
        raise NotImplementedError


class _Traced(_Meter):
    """Every block that Python allocates, by tracemalloc."""

    started = False

    def switch_on(self) -> None:
        self.started = not tracemalloc.is_tracing()
        if self.started:
            tracemalloc.start(1)

    def switch_off(self) -> None:
        if self.started:
            self.started = False
            tracemalloc.stop()

    def level(self) -> int:
        return tracemalloc.get_traced_memory()[0]

    def highest(self) -> int:
        return tracemalloc.get_traced_memory()[1]

    def reset(self) -> None:
        tracemalloc.reset_peak()


class _Marked(_Meter):
    """Resident memory, with the high-water mark that Linux keeps."""

    def level(self) -> int:
        return psutil.Process().memory_info().rss

    def highest(self) -> int:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
        raise OSError("/proc/self/status has no VmHWM")

    def reset(self) -> None:
        Path("/proc/self/clear_refs").write_text(RESET_PEAK)


class _Sampled(_Meter):
    """Resident memory, read every few milliseconds by a thread; a shorter peak may be missed."""

    def __init__(self) -> None:
        super().__init__()
        self.stop = threading.Event()
        self.thread: threading.Thread | None = None
        self.sampling = threading.Lock()
        self.seen = 0

    def switch_on(self) -> None:
        self.stop.clear()
        self.thread = threading.Thread(target=self.sample, name="peak memory sampler", daemon=True)
        self.thread.start()

    def switch_off(self) -> None:
        self.stop.set()
        if self.thread is not None:
            self.thread.join()
            self.thread = None

    def sample(self) -> None:
        while not self.stop.wait(SAMPLE_EVERY):
            with self.sampling:  # a level read before a reset must not count after it
                self.seen = max(self.seen, self.level())

    def level(self) -> int:
        return psutil.Process().memory_info().rss

    def highest(self) -> int:
        return self.seen

    def reset(self) -> None:
        with self.sampling:
            self.seen = 0


def _resident_meter() -> _Meter:
    if sys.platform == "linux":
        marked = _Marked()
        try:
            marked.reset()
            marked.highest()
        except OSError:
            return _Sampled()
        return marked
    return _Sampled()


_resident = _resident_meter()
_traced = _Traced()


@contextlib.contextmanager
def peak_memory(*, exact: bool = False) -> Generator[PeakMemory]:
    """Measure the most memory that the process holds inside the block, above what it held before.

    Yields a :class:`PeakMemory` with ``.peak`` in bytes. All threads count. Blocks may be nested.

    By default this is the process's resident memory. It costs nothing: fetching 500,000 rows of
    four strings from SQLite takes as long with it as without (1.1 s, 220 MB), where tracemalloc
    makes the same fetch 2 to 4.5 times slower on Python 3.11 to 3.13 (2.5 to 3.4 s, 205 MB), more
    than a cell may take. The price: pages that Python has kept from earlier work are used again
    before the process grows, so a need of a few megabytes can read as 0. On Linux the kernel keeps
    the peak itself, and no moment is missed; elsewhere a thread samples it.

    With ``exact=True`` tracemalloc counts the bytes of every allocation that goes through Python's
    allocators: the same figure each time, for small needs and for benchmarks. SQLite's own memory
    is not among them. If something else is tracing already, it is left on, and its peak is reset.
    """
    gc.collect()
    meter = _traced if exact else _resident
    memory = meter.begin()
    try:
        yield memory
    finally:
        meter.end(memory)
