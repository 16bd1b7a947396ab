"""What an x-ray recorded, and the questions that claims and checks ask of it."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

from looplab.lab.cancels import TIMED_OUT
from looplab.lab.lane_names import is_elsewhere
from looplab.lab.trace import Call, TaskTrace

Interval = tuple[float, float]


class _Timed:
    """What began and ended."""

    __slots__ = ()

    began: float
    ended: float

    @property
    def duration(self) -> float:
        """How long it took, in seconds."""
        return self.ended - self.began


@dataclass(frozen=True, slots=True)
class Hold(_Timed):
    """One step that kept the loop to itself. ``began`` and ``ended`` in seconds since the start."""

    name: str
    began: float
    ended: float


@dataclass(frozen=True, slots=True)
class Span(_Timed):
    """What ``task`` did for a time, such as holding a lock. Times in seconds since the start."""

    task: str
    name: str
    began: float
    ended: float
    """When the recording ended, for what went on."""


@dataclass(frozen=True, slots=True)
class Mark:
    """What befell ``task`` at one moment: ``at`` is in seconds since the recording began."""

    task: str
    at: float
    text: str


@dataclass(frozen=True)
class Lane:
    """One task as the picture shows it. Times are seconds since the recording began."""

    name: str
    depth: int
    loop: int
    outcome: str
    error: str
    steps: tuple[tuple[float, float, str], ...]
    calls: tuple[Call, ...]
    changes: frozenset[int]
    until: float
    """When it ended; for a pending task, when the recording did."""
    has_children: bool
    library: bool
    request: str = ""
    """The request that the task answers or sends, such as ``GET /orders``; else empty.

    A task that a middleware makes for the rest of the app has that of the task around it.
    """
    answered: float | None = None
    """When the last of the response had been sent; None where it was not, or nobody told.

    A lane that goes on after it does what the caller does not wait for: background tasks.
    """
    given_name: bool = False
    """Whether the name is one that somebody gave the task."""
    folded_into: str = ""
    """The lane that a library's task, which is not drawn, counts as part of; empty for none."""
    holds_below: tuple[Interval, ...] = ()
    """When tasks that fold away into this lane held the loop."""
    made: float = 0.0
    """When it was created: before its first step."""
    marks: tuple[Mark, ...] = ()
    marked_spans: tuple[Span, ...] = ()
    points: tuple[int, ...] = ()
    """For each step that ended in a suspension the offset in the bytecode of what its name means;
    -1 for none. :func:`looplab.lab.places.places_of` makes lines of them.
    """

    @property
    def began(self) -> float:
        """When the task's first step began; for one that took none, when the recording ended."""
        return self.steps[0][0] if self.steps else self.until

    @property
    def ended(self) -> float:
        """When the task's last step ended; for a pending task, the last that was seen."""
        return self.steps[-1][1] if self.steps else self.until

    @property
    def after_answer(self) -> float:
        """How long it went on after its answer had been sent, in seconds; 0 where nobody told."""
        return 0.0 if self.answered is None else max(self.until - self.answered, 0.0)

    def spans(self, name: str) -> list[Interval]:
        """Return when the task waited in a coroutine called ``name`` or in what that awaited.

        From the first suspension to the last resumption of each call; a call inside another of
        the same name is part of it.
        """
        spans = [
            (
                self.steps[call.first][1],
                self.until if call.last is None else self.steps[call.last][0],
            )
            for call in self.calls
            if call.name == name
        ]
        return _joined(spans or self.waits.get(name, []))

    @cached_property
    def waits(self) -> dict[str, list[Interval]]:
        """Waits by the name of the innermost coroutine, in the order of their first appearance.

        Suspensions of one call that follow one another are one wait; another call of the same
        coroutine function begins another. Those of one async generator are one wait.
        """
        found: dict[str, list[Interval]] = {}
        last = ""
        steps = self.steps
        if self.outcome == "pending":
            steps = (*steps, (self.until, self.until, ""))
        pairs = pairwise(steps)
        for place, ((_, ended, label), (resumed, _, _)) in enumerate(pairs):
            name = label or self.name
            spans = found.setdefault(name, [])
            if name == last and (place not in self.changes or name == self.name):
                spans[-1] = (spans[-1][0], resumed)
            else:
                spans.append((ended, resumed))
            last = name
        return found

    @property
    def turns(self) -> dict[str, list[Interval]]:
        """The waits that the lane's own name does not tell, by name.

        Empty where the task waits in one coroutine, as it mostly does: that is told by the name of
        the lane. Not so for a thread's work, or where the task's name was given to it.
        """
        turns = {name: spans for name, spans in self.waits.items() if name != self.name}
        told = len(self.waits) < 2 and not self.given_name
        return {} if told and not any(is_elsewhere(name) for name in turns) else turns


class Recording:
    """The steps of every task of one run. All times are in seconds."""

    def __init__(
        self,
        traces: Iterable[TaskTrace],
        *,
        title: str,
        start: float,
        end: float,
        held: float,
        unfold: bool = True,
        result: Any = None,
        error: BaseException | None = None,
        watched: Iterable[str] = (),
    ) -> None:
        self.title = title
        self.start = start
        self.held = held
        self.unfold = unfold
        """Whether a task that waits in several coroutines is drawn with a lane for each."""
        self.duration = end - start
        """From the first step to the answer, in seconds."""
        self.error = error
        """The exception that ended the run, if it was one that ``catch`` names; otherwise None."""
        self._result = result
        self.watched = tuple(watched)
        """Names of the locks and slots whose holders and queues were watched."""
        every = _lanes(list(traces), start, end, held)
        self.drawn = tuple(lane for lane in every if not lane.library)
        """The lanes of the picture: :attr:`tasks`, and those that did not come to start."""
        self.lanes = tuple(lane for lane in every if lane.steps)
        """Every task that took a step, a parent above its children, in the order of their making.
        """

    @property
    def result(self) -> Any:
        """What the coroutine returned; raises the caught exception if there was one instead."""
        if self.error is not None:
            raise self.error
        return self._result

    @property
    def tasks(self) -> tuple[Lane, ...]:
        """The lanes that are drawn: tasks of the course's code, not those that a library keeps."""
        return tuple(lane for lane in self.lanes if not lane.library)

    @property
    def names(self) -> list[str]:
        """Names of the drawn tasks, from the top."""
        return [lane.name for lane in self.tasks]

    @property
    def started(self) -> list[str]:
        """Names of the tasks in the order of their first steps."""
        return [lane.name for lane in sorted(self.tasks, key=lambda lane: lane.began)]

    @property
    def order(self) -> list[str]:
        """Names of the tasks that ended while the recording ran, in the order in which they did."""
        ended = [lane for lane in self.tasks if lane.outcome != "pending"]
        return [lane.name for lane in sorted(ended, key=lambda lane: lane.ended)]

    @property
    def cancelled(self) -> list[str]:
        """Names of the tasks that ended cancelled, from the top."""
        return [lane.name for lane in self.tasks if lane.outcome == "cancelled"]

    @property
    def failed(self) -> list[tuple[str, str]]:
        """Names of the tasks that ended with an exception, each with the exception's type."""
        return [(lane.name, lane.error) for lane in self.tasks if lane.outcome == "failed"]

    @property
    def pending(self) -> list[str]:
        """Names of the tasks that had not ended when the recording did."""
        return [lane.name for lane in self.tasks if lane.outcome == "pending"]

    @property
    def not_started(self) -> list[str]:
        """Names of the tasks that were created but took no step before the recording ended."""
        return [lane.name for lane in self.drawn if not lane.steps]

    @property
    def timed_out(self) -> list[str]:
        """Names of the tasks in which a time-out of their own expired, from the top.

        That is ``asyncio.timeout``, ``wait_for`` or a deadline of an AnyIO scope. The tasks that
        such a task cancels in turn are not among them.
        """
        return [
            lane.name for lane in self.drawn if any(mark.text == TIMED_OUT for mark in lane.marks)
        ]

    @property
    def marks(self) -> list[Mark]:
        """What befell tasks, by time: cancelled here, timed out here, and what ``mark()`` wrote."""
        found = [mark for lane in self.drawn for mark in lane.marks]
        return sorted(found, key=lambda mark: mark.at)

    def spans(self, name: str) -> list[Span]:
        """Return when tasks did what ``name`` says, by the beginning.

        ``name`` is ``holds NAME`` or ``queues for NAME`` of something that ``xray(..., watch=)``
        watches, or the text of a ``span()``. Times are in seconds since the recording began.

        Raises ValueError for a name that the recording has not seen.
        """
        every = [span for lane in self.drawn for span in lane.marked_spans]
        known = {span.name for span in every}
        for watched in self.watched:
            known |= {holds(watched), queues_for(watched)}
        if name not in known:
            seen = ", ".join(sorted(known)) or "none; give xray(..., watch={...}) what to watch"
            raise ValueError(f"name is {name!r}; this recording has the spans {seen}")
        return sorted((span for span in every if span.name == name), key=lambda span: span.began)

    def peak_of(self, name: str) -> int:
        """Return how many spans called ``name`` there were at once, at most.

        ``peak_of("holds slot")`` is how many slots were taken at once. Raises ValueError for a name
        that the recording has not seen.
        """
        return _peak((span.began, span.ended) for span in self.spans(name))

    @property
    def steps(self) -> int:
        """How many steps were recorded, those of a library's tasks included."""
        return sum(len(lane.steps) for lane in self.lanes)

    def waits(self, name: str) -> list[Interval]:
        """Return the waits in coroutines called ``name``, of all tasks, by their beginning.

        One wait per call, from its first suspension to its last resumption. Those of one async
        generator that follow one another are one wait.

        Raises ValueError for a name that the recording has not seen.
        """
        spans = [span for lane in self.lanes for span in lane.spans(name)]
        if not spans:
            self._known(name)
        return sorted(spans)

    def peak_in_flight(self, *names: str) -> int:
        """Return how many tasks at most were in flight at once.

        With ``names``, only tasks so called, and tasks while they wait in coroutines so called.
        Without, all drawn tasks but those that made tasks of their own: a parent that waits for its
        children is not counted beside them.

        Raises ValueError for a name that the recording has not seen.
        """
        for name in names:
            self._known(name)
        spans: list[Interval] = []
        for lane in self.tasks if not names else self.lanes:
            if not names:
                if not lane.has_children:
                    spans.append((lane.began, lane.until))
            elif lane.name in names:
                spans.append((lane.began, lane.until))
            else:
                spans.extend(_joined([span for name in names for span in lane.spans(name)]))
        return _peak(spans)

    @property
    def holds(self) -> list[Hold]:
        """Steps that took at least ``held`` seconds, by their beginning."""
        return self._holds_where(lambda duration: duration >= self.held)

    @property
    def longest_hold(self) -> float:
        """How long the longest single step kept the loop, in seconds."""
        return max((hold.duration for hold in self._holds_where(lambda _: True)), default=0.0)

    def _holds_where(self, long: Callable[[float], bool]) -> list[Hold]:
        found = [
            Hold(lane.folded_into or lane.name, began, ended)
            for lane in self.lanes
            for began, ended, _ in lane.steps
            if long(ended - began)
        ]
        return sorted(found, key=lambda hold: hold.began)

    def _known(self, name: str) -> None:
        known = {lane.name for lane in self.lanes}
        known.update(*(lane.waits for lane in self.lanes))
        known.update(call.name for lane in self.lanes for call in lane.calls)
        if name not in known:
            raise ValueError(f"name is {name!r}; this recording has {', '.join(sorted(known))}")

    def __repr__(self) -> str:
        milliseconds = self.duration * 1000
        return f"<Recording {self.title!r}: {len(self.tasks)} tasks, {milliseconds:.0f} ms>"


def holds(name: str) -> str:
    """Return what the spans of those are called that hold ``name``."""
    return f"holds {name}"


def queues_for(name: str) -> str:
    """Return what the spans of those are called that wait until they hold ``name``."""
    return f"queues for {name}"


def _joined(spans: Iterable[Interval]) -> list[Interval]:
    """Return ``spans`` by their beginning, those that overlap as one."""
    joined: list[Interval] = []
    for began, ended in sorted(spans):
        if joined and began < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(joined[-1][1], ended))
        else:
            joined.append((began, ended))
    return joined


def _peak(spans: Iterable[Interval]) -> int:
    changes = sorted(
        change for began, ended in spans for change in ((began, 1), (ended, -1))
    )  # at one instant an end (-1) sorts before a beginning (+1)
    peak = current = 0
    for _, change in changes:
        current += change
        peak = max(peak, current)
    return peak


def _lanes(traces: list[TaskTrace], start: float, end: float, held: float) -> list[Lane]:
    children: dict[int, list[TaskTrace]] = {}
    roots: list[TaskTrace] = []
    known = {id(trace) for trace in traces}
    for trace in traces:
        if trace.parent is not None and id(trace.parent) in known:
            children.setdefault(id(trace.parent), []).append(trace)
        else:
            roots.append(trace)

    placed: list[tuple[TaskTrace, int, TaskTrace | None]] = []
    below: dict[int, list[Interval]] = {}
    stack: list[tuple[TaskTrace, int, TaskTrace | None]]
    stack = [(trace, 0, None) for trace in reversed(roots)]
    while stack:
        trace, depth, drawn = stack.pop()
        placed.append((trace, depth, drawn))
        if trace.library and drawn is not None:
            holds = [(b - start, e - start) for b, e, _ in trace.steps if e - b >= held]
            below.setdefault(id(drawn), []).extend(holds)
        inner, nearest = (depth, drawn) if trace.library else (depth + 1, trace)
        stack.extend((child, inner, nearest) for child in reversed(children.get(id(trace), [])))

    def lane(trace: TaskTrace, depth: int, drawn: TaskTrace | None) -> Lane:
        started = [child for child in children.get(id(trace), []) if child.steps]
        mine = [child for child in started if not child.library]
        name = trace.name
        ended = trace.steps[-1][1] if trace.steps else end
        until = max(ended, end) if trace.outcome == "pending" else ended
        began = trace.steps[0][0] if trace.steps else end
        return Lane(
            name=name,
            depth=depth,
            loop=trace.loop,
            outcome=trace.outcome,
            error=trace.error,
            steps=tuple((b - start, e - start, label) for b, e, label in trace.steps),
            calls=tuple(trace.calls()),
            changes=trace.changes(),
            until=until - start,
            has_children=bool(mine),
            library=trace.library,
            made=(began if trace.made is None else trace.made) - start,
            marks=tuple(Mark(name, at - start, text) for at, text in trace.marks),
            marked_spans=tuple(
                Span(
                    name,
                    stretch.name,
                    stretch.began - start,
                    (max(until, end) if stretch.ended is None else stretch.ended) - start,
                )
                for stretch in trace.stretches
            ),
            points=tuple(trace.points),
            request=trace.request,
            answered=None if trace.answered is None else trace.answered - start,
            given_name=bool(trace.given_name),
            folded_into=drawn.name if trace.library and drawn is not None else "",
            holds_below=tuple(sorted(below.get(id(trace), []))),
        )

    return [lane(trace, depth, drawn) for trace, depth, drawn in placed]
