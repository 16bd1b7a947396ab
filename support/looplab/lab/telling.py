"""What a recording shows, in words: for those who can't see the picture, and below it.

It needs no matplotlib, so that an x-ray can be told where none is installed.
"""

from collections import Counter

from looplab.lab.cancels import CANCELLED, NEVER_STARTED, TIMED_OUT
from looplab.lab.recording import Recording, holds, queues_for

MARKS_TOLD = 4
"""So many different marks are named in words."""
TOLD_APART = {CANCELLED, NEVER_STARTED, TIMED_OUT}
"""Marks that are told as what became of tasks."""


def describe(recording: Recording) -> str:
    """Return in one sentence what the picture of ``recording`` shows."""
    lanes = recording.tasks
    parts = [f"{len(lanes)} {'task' if len(lanes) == 1 else 'tasks'}"]
    if len(lanes) == 1:
        turns = [name for name in lanes[0].waits if name != lanes[0].name]
        if len(turns) > 1:
            parts.append(f"waiting in turn in {_listed(turns)}")
    else:
        parts.append(f"at most {recording.peak_in_flight()} in flight")
    parts.extend(_taken(recording, name) for name in recording.watched)
    held = recording.holds
    if held:
        longest = max(held, key=lambda hold: hold.duration)
        times = times_of(len(held))
        parts.append(f"loop held {times}, longest {duration(longest.duration)} by {longest.name}")
    parts.extend(
        f"{len(names)} {word}"
        for word, names in (
            ("timed out", recording.timed_out),
            ("cancelled", recording.cancelled),
            ("failed", recording.failed),
            ("not ended", recording.pending),
            ("not started", recording.not_started),
        )
        if names
    )
    parts.extend(_marked(recording))
    background = _going_on(recording)
    if background:
        parts.append(f"{background} going on after the answer")
    parts.append(f"{verb_of(recording)} after {duration(recording.duration)}")
    return f"{recording.title}: {', '.join(parts)}."


def _taken(recording: Recording, name: str) -> str:
    """Return how many hold what is called ``name`` at most, and how many queue for it."""
    peak = recording.peak_of(holds(name))
    queued = len(recording.spans(queues_for(name)))
    said = (
        f"at most {peak} {'holds' if peak == 1 else 'hold'} {name}"
        if peak
        else f"none holds {name}"
    )
    waits = "1 queues" if queued == 1 else f"{queued:,} queue"
    return f"{said} and {waits} for it" if queued else said


def _marked(recording: Recording) -> list[str]:
    """Return what a lesson marked itself, and how often."""
    queues = {queues_for(name) for name in recording.watched}
    watched = {holds(name) for name in recording.watched} | queues
    texts = [mark.text for mark in recording.marks if mark.text not in TOLD_APART]
    texts += [
        span.name
        for lane in recording.drawn
        for span in lane.marked_spans
        if span.name not in watched
    ]
    counted = Counter(texts).most_common()
    said = [f"{text!r} {times_of(count)}" for text, count in counted[:MARKS_TOLD]]
    return [*said, f"{len(counted) - MARKS_TOLD} marks more"] if len(counted) > MARKS_TOLD else said


def times_of(count: int) -> str:
    """Return how often, in words: ``once`` or ``12 times``."""
    return "once" if count == 1 else f"{count:,} times"


def _listed(names: list[str]) -> str:
    shown = names if len(names) <= 6 else [*names[:5], f"{len(names) - 5} more"]
    return f"{', '.join(shown[:-1])} and {shown[-1]}"


def verb_of(recording: Recording) -> str:
    """Return what to call the end of a recording: ``failed``, ``answered`` or ``done``.

    A request that goes on after its answer is done at the end, and was answered before.
    """
    root = recording.lanes[0].name if recording.lanes else ""
    if recording.error is not None:
        return "failed"
    return "answered" if "/" in root and not _going_on(recording) else "done"


def _going_on(recording: Recording) -> int:
    """Return how many tasks went on after their answer for long enough to be told."""
    return sum(lane.after_answer >= recording.held for lane in recording.tasks)


def duration(seconds: float) -> str:
    """Return a time in words, in seconds from 5 s on and in milliseconds below."""
    if seconds >= 5.0:
        return f"{seconds:.1f} s"
    milliseconds = seconds * 1000
    return f"{milliseconds:.0f} ms" if milliseconds >= 9.5 else f"{milliseconds:.2g} ms"
