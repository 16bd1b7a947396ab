"""Pictures of recordings made by hand: all words legible, nothing said that was not recorded."""

import io
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.text import Text
from matplotlib.transforms import Bbox
from PIL import Image

from looplab.lab.cancels import CANCELLED, NEVER_STARTED, TIMED_OUT
from looplab.lab.colours import INK, QUEUES, SPANS, TIMED_OUT_INK
from looplab.lab.display import _png
from looplab.lab.pictures import HELD, HELD_BAND, RUNNING, WAITING, draw
from looplab.lab.recording import Recording
from looplab.lab.telling import describe
from looplab.lab.trace import Stretch, TaskTrace

Step = tuple[float, float, str]


def trace(name: str, *steps: Step, parent: TaskTrace | None = None, **others: Any) -> TaskTrace:
    made = TaskTrace(qualified=name, parent=parent, loop=0, ours=True, outcome="done")
    made.steps.extend(steps or [(0.0, 0.001, ""), (0.05, 0.051, "")])
    for field, value in others.items():
        setattr(made, field, value)
    return made


def recording(
    *traces: TaskTrace, title: str = "By hand", end: float = 0.1, watched: Sequence[str] = ()
) -> Recording:
    return Recording(traces, title=title, start=0.0, end=end, held=0.01, watched=watched)


def words(figure: Figure) -> Iterator[tuple[str, Bbox]]:
    """Yield what is written and where, at the resolution of the saved picture."""
    figure.set_dpi(200)
    figure.draw_without_rendering()
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        if text.get_visible() and text.get_text().strip():
            yield text.get_text(), text.get_window_extent()


def said(figure: Figure) -> list[str]:
    return [text for text, _ in words(figure)]


def drawn(figure: Figure) -> Iterator[tuple[float, str, list[tuple[float, float]]]]:
    """Yield what was drawn: a level, a colour, and beginnings and lengths in the axis's unit."""
    for axes in figure.axes:
        for bar in axes.collections:
            if isinstance(bar, PolyCollection):
                colour: Any = bar.get_facecolor()
                across = [np.asarray(path.vertices)[:, 0] for path in bar.get_paths()]
                spans = [(float(x.min()), float(x.max() - x.min())) for x in across]
                yield bar.get_zorder(), to_hex(colour[0]), spans


def bars(figure: Figure, colour: str) -> list[tuple[float, float]]:
    """Return the beginnings and lengths of all bars in ``colour``, in the axis's unit."""
    found = (spans for level, kind, spans in drawn(figure) if level >= 2 and kind == colour)
    return sorted(itertools.chain.from_iterable(found))


def symbols(figure: Figure, colour: str) -> list[float]:
    """Return when symbols in ``colour`` stand, in the axis's unit."""
    found: list[float] = []
    for axes in figure.axes:
        for line in axes.get_lines():
            if line.get_marker() != "None" and to_hex(line.get_markerfacecolor()) == colour:
                found.extend(np.asarray(line.get_xdata(), dtype=float).tolist())
    return sorted(found)


def dotted(figure: Figure) -> list[tuple[float, float]]:
    """Return beginnings and ends of what is drawn as not yet started, in the axis's unit."""
    found = []
    for axes in figure.axes:
        for line in axes.get_lines():
            across = np.asarray(line.get_xdata(), dtype=float)
            if line.is_dashed() and len(across) % 3 == 0:  # the answer's line has two ends
                found.extend((a, b) for a, b, _ in across.reshape(-1, 3).tolist())
    return sorted(found)


def assert_legible(figure: Figure) -> None:
    """Every word stands inside the picture and no two overlap."""
    everything = list(words(figure))
    edge = figure.bbox.padded(1)
    for text, box in everything:
        assert edge.x0 <= box.x0, f"{text!r} leaves the picture"
        assert edge.y0 <= box.y0, f"{text!r} leaves the picture"
        assert edge.x1 >= box.x1, f"{text!r} leaves the picture"
        assert edge.y1 >= box.y1, f"{text!r} leaves the picture"
    for (one, first), (other, second) in itertools.combinations(everything, 2):
        shared = Bbox.intersection(first, second)
        overlap = 0 if shared is None else min(shared.width, shared.height)
        assert overlap < 3, f"{one!r} and {other!r} overlap"


def test_a_family_is_drawn_in_rows() -> None:
    parent = trace("dashboard", (0, 0.001, ""), (0.06, 0.061, ""))
    figure = draw([recording(parent, trace("user", parent=parent), trace("orders", parent=parent))])
    assert_legible(figure)
    assert {"By hand", "dashboard", "user", "orders", "done after 100 ms"} <= set(said(figure))
    assert {"waiting", "running", "milliseconds since the start"} <= set(said(figure))
    assert "holding the loop" not in said(figure)
    assert bars(figure, WAITING) == [pytest.approx(span) for span in [(0, 51), (0, 51), (0, 61)]]


def test_named_waits_of_one_task_have_rows_of_their_own() -> None:
    steps = [(0, 0.001, "get"), (0.05, 0.051, "put"), (0.09, 0.1, "")]
    figure = draw([recording(trace("main", *steps))])
    assert_legible(figure)
    assert {"main", "get", "put"} <= set(said(figure))
    assert (pytest.approx(1), pytest.approx(49)) in bars(figure, WAITING)
    assert (pytest.approx(51), pytest.approx(39)) in bars(figure, WAITING)


def test_one_name_that_is_the_tasks_own_needs_no_row() -> None:
    figure = draw([recording(trace("main", (0, 0.001, "main"), (0.09, 0.1, "")))])
    assert said(figure).count("main") == 1


def test_a_hold_is_red_and_says_how_long() -> None:
    figure = draw([recording(trace("render", (0, 0.001, ""), (0.02, 0.07, "")), trace("other"))])
    assert_legible(figure)
    assert {"loop held 50 ms", "holding the loop"} <= set(said(figure))
    assert bars(figure, HELD) == [pytest.approx((20, 50))]


def test_endings_are_told() -> None:
    figure = draw(
        [
            recording(
                trace("stopped", outcome="cancelled"),
                trace("broken", outcome="failed", error="LookupError"),
                trace("open", outcome="pending"),
            )
        ]
    )
    assert_legible(figure)
    assert {"cancelled", "LookupError", "not ended"} <= set(said(figure))


def test_a_hold_that_ends_in_an_error_at_the_end_of_the_picture_is_legible() -> None:
    steps = [(0, 0.001, ""), (0.08, 0.1, "")]
    error = "AnExceptionWithAnExceedinglyLongName"
    figure = draw([recording(trace("render", *steps, outcome="failed", error=error))])
    assert_legible(figure)
    assert any(text.startswith("AnExceptionWith") and text.endswith("…") for text in said(figure))
    figure = draw([recording(trace("render", *steps, outcome="failed", error="LookupError"))])
    assert_legible(figure)
    assert "LookupError" in said(figure)


def test_many_holds_in_a_row_do_not_write_over_one_another() -> None:
    steps = [(n * 0.02, n * 0.02 + 0.0101, "") for n in range(20)]
    figure = draw([recording(trace("render", *steps), end=0.4)])
    assert_legible(figure)
    assert len(bars(figure, HELD)) == 20


def test_panels_share_one_axis() -> None:
    figure = draw(
        [
            recording(trace("a", (0, 0.001, ""), (0.3, 0.301, "")), title="First", end=0.301),
            recording(trace("b"), title="Second", end=0.051),
        ]
    )
    assert_legible(figure)
    first, second = figure.axes
    assert first.get_xlim() == second.get_xlim()
    assert first.get_position().x0 == second.get_position().x0
    assert said(figure).index("First") < said(figure).index("Second")


def test_long_recordings_count_in_seconds() -> None:
    figure = draw([recording(trace("a", (0, 1, ""), (9, 10, "")), end=10)])
    assert {"seconds since the start", "done after 10.0 s"} <= set(said(figure))
    assert bars(figure, WAITING) == [pytest.approx((0, 10))]


def test_a_servers_lanes_stand_under_a_heading() -> None:
    figure = draw(
        [recording(trace("asks"), trace("GET /slow", loop=1), trace("GET /slow", loop=1))]
    )
    assert_legible(figure)
    assert said(figure).count("the server's loop") == 1


def test_very_long_names_are_cut_and_titles_too() -> None:
    parent = trace("W" * 200)
    children = [trace("i" * 400, parent=parent), trace("get", parent=parent)]
    figure = draw([recording(parent, *children, title="M" * 300)])
    assert_legible(figure)
    left = figure.axes[0].get_window_extent().x0
    labels = [box for text, box in words(figure) if text[:2] in ("WW", "ii", "ge")]
    assert len(labels) == 3
    assert all(box.x1 < left for box in labels)


def test_deep_families_stay_inside() -> None:
    lanes = [trace("root")]
    for depth in range(60):
        lanes.append(trace(f"level {depth}", parent=lanes[-1]))
    figure = draw([recording(*lanes)])
    assert_legible(figure)


@pytest.mark.parametrize("shorter", [0.5, 0.6, 0.7, 0.8, 0.9, 0.95])
def test_when_the_shorter_of_two_was_answered_is_said_inside_the_picture(shorter: float) -> None:
    name = "GET /export inside AsyncResourceMiddleware"
    first = recording(trace(name, (0.0, 0.05, "")), end=0.05)
    second = recording(trace(name, (0.0, 0.05 * shorter, "")), end=0.05 * shorter)
    assert_legible(draw([first, second]))


def test_colours_go_by_name_and_not_by_who_came_first() -> None:
    def two(first: str, second: str) -> Figure:
        lanes = [trace(f, stretches=[Stretch(f"for {f}", 0.0, 0.03)]) for f in (first, second)]
        return draw([recording(*lanes)])

    def colours(figure: Figure) -> set[tuple[str, str]]:
        found: list[Any] = figure.findobj(Patch)
        return {
            (one.get_label(), to_hex(one.get_facecolor()))
            for one in found
            if str(one.get_label()).startswith("for ")
        }

    assert colours(two("A", "B")) == colours(two("B", "A"))
    assert len(colours(two("A", "B"))) == 2


def test_names_and_titles_are_text_not_formulas() -> None:
    figure = draw([recording(trace("a_$b$", given_name="costs $5 or $6"), title="$5 and $6")])
    assert {"costs $5 or $6", "$5 and $6"} <= set(said(figure))
    assert_legible(figure)
    by_title = {text.get_text(): text for text in figure.findobj(Text) if isinstance(text, Text)}
    assert not by_title["$5 and $6"].get_parse_math()


def test_zero_duration_is_drawn() -> None:
    figure = draw([recording(trace("nothing", (0.0, 0.0, "")), end=0.0)])
    assert_legible(figure)
    assert "done after 0 ms" in said(figure)


def test_microseconds_are_not_rounded_to_nothing() -> None:
    figure = draw([recording(trace("quick", (0.0, 4.2e-6, "")), end=4.2e-6)])
    assert "done after 0.0042 ms" in said(figure)


def test_a_recording_without_tasks_is_drawn() -> None:
    assert_legible(draw([recording()]))


def test_a_thousand_tasks_of_one_name_share_one_label() -> None:
    parent = trace("fan_out")
    children = [trace("branch", parent=parent) for _ in range(1000)]
    figure = draw([recording(parent, *children)])
    assert_legible(figure)
    assert "branch × 1,000" in said(figure)
    assert figure.get_size_inches()[1] < 6
    assert len(_png(figure)) < 60_000


def test_the_one_of_a_thousand_that_held_the_loop_is_drawn() -> None:
    parent = trace("fan_out", (0, 0.001, ""))
    children = [trace("branch", (0.001, 0.002, ""), parent=parent) for _ in range(1000)]
    children[777].steps.append((0.02, 0.08, ""))
    figure = draw([recording(parent, *children)])
    assert bars(figure, HELD) == [pytest.approx((20, 60))]


def test_a_thousand_tasks_of_different_names_fit_and_say_how_many_are_left_out() -> None:
    parent = trace("fan_out")
    children = [trace(f"customer {n}", parent=parent) for n in range(1000)]
    children[900].steps.append((0.06, 0.09, ""))
    children[901].outcome = "cancelled"
    figure = draw([recording(parent, *children)])
    assert_legible(figure)
    assert figure.get_size_inches()[1] < 12
    drawn = [text for text in said(figure) if text.startswith("customer")]
    assert f"and {1000 - len(drawn)} tasks more" in said(figure)
    assert {"customer 0", "customer 900", "customer 901"} <= set(drawn)
    assert bars(figure, HELD) == [pytest.approx((60, 30))]


def test_many_families_fit() -> None:
    lanes = [trace("root")]
    for _ in range(100):
        lanes.append(trace("request", parent=lanes[0]))
        request = lanes[-1]
        lanes.extend(trace(name, parent=request) for name in ("user", "orders", "stats"))
    figure = draw([recording(*lanes)])
    assert_legible(figure)
    assert figure.get_size_inches()[1] < 12


def test_a_usual_picture_is_small() -> None:
    panels = []
    for title in ("One by one", "Gathered", "One blocks"):
        parent = trace("GET /dashboard")
        children = [
            trace(name, (n / 100, n / 100 + 0.001, ""), (0.09, 0.091, ""), parent=parent)
            for n, name in enumerate(["user", "orders", "featured", "count", "spent", "items"])
        ]
        panels.append(recording(parent, *children, title=title))
    assert len(_png(draw(panels))) < 60_000


def test_saved_colours_are_the_drawn_ones_however_rare() -> None:
    parent = trace("named", (0, 0.011, ""), (0.3, 0.301, ""))
    children = [trace(f"customer {n}", parent=parent) for n in range(300)]
    with Image.open(io.BytesIO(_png(draw([recording(parent, *children, end=0.31)])))) as image:
        pixels = np.asarray(image.convert("RGB")).reshape(-1, 3)
    saved = {to_hex(tuple(colour / 255)) for colour in np.unique(pixels, axis=0)}
    assert {WAITING, RUNNING, HELD, HELD_BAND} <= saved


# Many steps.


def steady(count: int, share: float) -> Recording:
    """A task of ``count`` steps that runs for ``share`` of the time and waits for the rest."""
    length = 1.0 / count
    steps = [(n * length, (n + share) * length, "get") for n in range(count)]
    return recording(trace("main", *steps), end=1.0)


def darkness(figure: Figure) -> float:
    """Return how dark the lane is on the whole: 0 for all waiting, 1 for all running."""

    def blue(colour: str) -> float:
        return int(colour[1:3], 16)

    light, dark = blue(WAITING), blue(RUNNING)
    total = 0.0
    for level, colour, spans in drawn(figure):
        if level == 3:
            length = sum(length for _, length in spans)
            total += length * (blue(colour) - light) / (dark - light)
    return total / 1000


@pytest.mark.parametrize("share", [0.02, 0.3, 0.9])
def test_steps_denser_than_pixels_are_shaded_by_their_share(share: float) -> None:
    shown = darkness(draw([steady(20_000, share)]))
    assert share - 0.02 <= shown <= share + 0.2


def test_a_hundred_thousand_steps_make_few_bars() -> None:
    figure = draw([steady(100_000, 0.5)])
    assert_legible(figure)
    assert sum(len(spans) for _, _, spans in drawn(figure)) < 5_000
    assert len(_png(figure)) < 60_000


def test_a_few_steps_are_single_marks_wide_enough_to_see() -> None:
    figure = draw(
        [recording(trace("main", *[(n / 10, n / 10 + 1e-6, "") for n in range(10)]), end=1)]
    )
    marks = bars(figure, RUNNING)
    assert [round(began) for began, _ in marks] == [n * 100 for n in range(10)]
    axes = figure.axes[0]
    figure.set_dpi(200)
    pixels = axes.get_window_extent().width / axes.get_xlim()[1]
    assert all(2 <= length * pixels < 4 for _, length in marks)


def test_steps_in_between_stay_on_the_row_of_their_wait() -> None:
    steps = [
        (0, 0.001, "get"), (0.01, 0.011, "get"), (0.02, 0.021, "put"), (0.03, 0.031, "put"),
        (0.04, 0.041, ""),
    ]  # fmt: skip
    figure = draw([recording(trace("main", *steps))])
    marks = [round(began) for began, _ in bars(figure, RUNNING)]
    assert sorted(marks) == sorted([0, 10, 20, 30, 40, 0, 10, 20, 20, 30, 40])


# What tasks hold and queue for.


def held_by_turns() -> Recording:
    first = trace("first", stretches=[Stretch("holds lock", 0.001, 0.03)])
    second = trace(
        "second",
        stretches=[Stretch("queues for lock", 0.002, 0.03), Stretch("holds lock", 0.03, 0.05)],
    )
    return recording(first, second, watched=["lock"])


def test_what_is_held_is_a_strip_and_what_is_queued_for_is_hatched() -> None:
    figure = draw([held_by_turns()])
    assert_legible(figure)
    assert bars(figure, SPANS[0]) == [pytest.approx((1, 29)), pytest.approx((30, 20))]
    assert bars(figure, QUEUES[0]) == [pytest.approx((2, 28))]
    assert {"holds lock", "queues for lock"} <= set(said(figure))
    hatched = [bar for bar in figure.findobj(PolyCollection) if bar.get_hatch()]
    assert len(hatched) == 1
    colour: Any = hatched[0].get_facecolor()
    assert to_hex(colour[0]) == QUEUES[0]


def test_the_legend_explains_only_what_is_drawn() -> None:
    plain = set(said(draw([recording(trace("a"))])))
    assert not plain & {
        "not yet started", "not ended", "cancelled here", "timed out here", "holding the loop",
    }  # fmt: skip
    unused = set(said(draw([recording(trace("a"), watched=["lock"])])))
    assert not unused & {"holds lock", "queues for lock"}


def test_two_things_that_are_held_have_two_colours_in_every_panel() -> None:
    both = [Stretch("holds slot", 0.01, 0.02), Stretch("holds lock", 0.01, 0.03)]
    figure = draw(
        [
            recording(trace("a", stretches=both), watched=["slot", "lock"]),
            recording(trace("b", stretches=both[1:]), watched=["lock"]),
        ]
    )
    assert_legible(figure)
    assert bars(figure, SPANS[0]) == [pytest.approx((10, 10))]
    assert bars(figure, SPANS[1]) == [pytest.approx((10, 20))] * 2


def test_a_lock_that_outlives_its_task_is_drawn_to_the_end_and_the_words_stand_after_it() -> None:
    leaks = trace("leaks", outcome="cancelled", stretches=[Stretch("holds lock", 0.01)])
    figure = draw([recording(leaks, watched=["lock"])])
    assert_legible(figure)
    (strip,) = bars(figure, SPANS[0])
    assert strip == pytest.approx((10, 90))
    (ending,) = [box for text, box in words(figure) if text == "cancelled"]
    axes = figure.axes[0]
    assert ending.x0 > axes.transData.transform((100, 0))[0]


def test_thin_lanes_are_coloured_by_what_they_hold() -> None:
    lanes = [
        trace("call", stretches=[Stretch("holds slot", 0.01 * n, 0.01 * n + 0.01)])
        for n in range(6)
    ]
    figure = draw([recording(*lanes, watched=["slot"])])
    assert_legible(figure)
    assert len(bars(figure, SPANS[0])) == 6


@pytest.mark.parametrize("watched", [True, False])
def test_dense_steps_let_what_is_held_shine_through(watched: bool) -> None:
    busy = trace("busy", *[(n / 20_000, (n + 0.3) / 20_000, "get") for n in range(20_000)])
    busy.stretches = [Stretch("holds lock", 0.2, 0.8)] if watched else []
    figure = draw([recording(busy, end=1.0, watched=["lock"])])
    shades: list[Any] = [
        bar.get_facecolor() for bar in figure.findobj(PolyCollection) if bar.get_zorder() == 3
    ]
    assert shades
    assert all((shade[0][3] < 1) == watched for shade in shades)


def test_a_legend_of_many_names_stays_inside_the_picture() -> None:
    names = [f"waits for the answer of supplier number {n}" for n in range(7)]
    spans = [Stretch(name, 0.01 * n, 0.01 * n + 0.01) for n, name in enumerate(names)]
    figure = draw([recording(trace("a" * 60, stretches=spans), watched=["slot"])])
    assert_legible(figure)
    assert sum(text.startswith("waits for the answer") for text in said(figure)) == 7


# Marks.


def test_a_cancel_and_a_time_out_are_marked_where_they_happen() -> None:
    figure = draw(
        [
            recording(
                trace("late", marks=[(0.02, TIMED_OUT)]),
                trace("stopped", marks=[(0.03, CANCELLED)], outcome="cancelled"),
            )
        ]
    )
    assert_legible(figure)
    assert symbols(figure, TIMED_OUT_INK) == pytest.approx([20])
    assert symbols(figure, INK) == pytest.approx([30])
    assert {"timed out here", "cancelled here", "cancelled"} <= set(said(figure))


def test_a_lessons_own_mark_has_its_words_beside_it() -> None:
    marks = [(0.02, "asks again"), (0.051, "gives up")]
    figure = draw([recording(trace("a", marks=marks))])
    assert_legible(figure)
    where = dict(words(figure))
    axes = figure.axes[0]
    for at, text in marks:
        x = axes.transData.transform((at * 1000, 0))[0]
        assert x < where[text].x0 < x + 30


def test_a_mark_at_the_end_of_the_picture_has_its_words_before_it() -> None:
    long = "gives up after having waited for the slot for so long that nobody waits for it"
    figure = draw([recording(trace("a", marks=[(0.0999, long)]))])
    assert_legible(figure)
    ((at,),) = [symbols(figure, "#6b3fa0")]
    (box,) = [box for text, box in words(figure) if text.startswith("gives up")]
    assert box.x1 < figure.axes[0].transData.transform((at, 0))[0]


def test_a_cancel_before_the_first_step_is_said() -> None:
    never = trace(
        "never", (0.05, 0.0501, ""), made=0.01, outcome="cancelled", marks=[(0.05, NEVER_STARTED)]
    )
    figure = draw([recording(trace("main"), never)])
    assert_legible(figure)
    assert "cancelled before it started" in said(figure)
    assert dotted(figure) == [pytest.approx((10, 50))]


# Not yet started, not ended.


def test_a_task_is_dotted_from_its_making_to_its_first_step() -> None:
    figure = draw([recording(trace("main"), trace("late", (0.04, 0.041, ""), made=0.01))])
    assert_legible(figure)
    assert dotted(figure) == [pytest.approx((10, 40))]
    assert "not yet started" in said(figure)
    assert (pytest.approx(40), pytest.approx(1)) in bars(figure, WAITING)


def test_a_task_that_starts_at_once_is_not_dotted() -> None:
    figure = draw([recording(trace("main"), trace("soon", made=-0.0001))])
    assert dotted(figure) == []
    assert "not yet started" not in said(figure)


def test_a_task_that_never_started_has_a_lane_without_a_bar() -> None:
    never = trace("never", made=0.02, outcome="pending")
    never.steps.clear()
    made = recording(trace("main"), never)
    figure = draw([made])
    assert_legible(figure)
    assert dotted(figure) == [pytest.approx((20, 100))]
    assert {"never", "not started"} <= set(said(figure))
    assert len(bars(figure, WAITING)) == 1
    assert made.names == ["main"]
    assert describe(made) == "By hand: 1 task, 1 not started, done after 100 ms."


def test_an_open_end_is_an_arrow() -> None:
    figure = draw([recording(trace("main"), trace("open", outcome="pending"))])
    assert_legible(figure)
    assert symbols(figure, WAITING) == pytest.approx([100])
    assert said(figure).count("not ended") == 2  # beside the lane, and in the legend


# Groups.


def group_of(count: int, **befell: dict[str, Any]) -> Recording:
    lanes = [trace("call", (n / 1e4, n / 1e4 + 0.001, ""), (0.05, 0.06, "")) for n in range(count)]
    for place, fields in befell.items():
        for field, value in fields.items():
            setattr(lanes[int(place[1:])], field, value)
    return recording(trace("main"), *lanes)


def test_failures_in_a_group_are_counted_beside_the_first_of_them_and_marked() -> None:
    failed = {f"n{n}": {"outcome": "failed", "error": "RuntimeError"} for n in range(60, 180, 10)}
    figure = draw([group_of(200, **failed)])
    assert_legible(figure)
    assert symbols(figure, HELD) == pytest.approx([60] * 12)
    (note,) = [box for text, box in words(figure) if text == "12 failed: RuntimeError"]
    axes = figure.axes[0]
    heights = [
        float(down)
        for line in axes.get_lines()
        if line.get_marker() == "o"
        for down in np.asarray(line.get_ydata())
    ]
    first = axes.transData.transform((0, min(heights)))[1]
    assert note.y0 < first < note.y1


def test_all_that_befell_a_group_is_said() -> None:
    figure = draw(
        [
            group_of(
                20,
                n1={"outcome": "cancelled"},
                n2={"outcome": "failed", "error": "KeyError"},
                n3={"outcome": "failed", "error": "ValueError"},
                n4={"outcome": "failed", "error": "KeyError"},
                n5={"outcome": "failed", "error": "TimeoutError", "marks": [(0.05, TIMED_OUT)]},
                n6={"outcome": "pending"},
            )
        ]
    )
    assert_legible(figure)
    told = {"1 cancelled", "3 failed: KeyError, Val…", "1 timed out", "1 not ended"}
    assert {text for text in told if not text.startswith("3")} <= set(said(figure))
    assert any(text.startswith("3 failed: KeyError") for text in said(figure))


def test_a_group_in_which_all_went_well_has_no_note() -> None:
    assert not [text for text in said(draw([group_of(20)])) if text[0].isdigit() and " " in text]


# In words.


def test_who_holds_and_who_queues_in_words() -> None:
    assert describe(held_by_turns()) == (
        "By hand: 2 tasks, at most 2 in flight, at most 1 holds lock and 1 queues for it, "
        "done after 100 ms."
    )


def test_nobody_who_holds_in_words() -> None:
    assert "none holds lock, " in describe(recording(trace("a"), watched=["lock"]))


def test_time_outs_and_own_marks_in_words() -> None:
    lanes = [
        trace("a", marks=[(0.01, "asks"), (0.02, TIMED_OUT), (0.03, "asks")]),
        trace("b", stretches=[Stretch("has the lease", 0.01, 0.02)]),
    ]
    assert describe(recording(*lanes)) == (
        "By hand: 2 tasks, at most 2 in flight, 1 timed out, 'asks' 2 times, "
        "'has the lease' once, done after 100 ms."
    )


def test_more_than_four_own_marks_are_not_all_named() -> None:
    marks = [(0.01, f"mark {n}") for n in range(7)]
    assert "'mark 3' once, 3 marks more" in describe(recording(trace("a", marks=marks)))


def test_a_family_in_words() -> None:
    parent = trace("page", (0, 0.001, ""), (0.099, 0.1, ""))
    lanes = [
        parent,
        trace("render", (0.001, 0.031, ""), parent=parent),
        trace(
            "broken", (0.031, 0.032, ""), (0.05, 0.051, ""), parent=parent, outcome="failed",
            error="KeyError",
        ),
        trace("stopped", (0.032, 0.033, ""), (0.05, 0.051, ""), parent=parent, outcome="cancelled"),
        trace("open", (0.033, 0.034, ""), parent=parent, outcome="pending"),
    ]  # fmt: skip
    made = recording(*lanes, title="Page")
    assert describe(made) == (
        "Page: 5 tasks, at most 3 in flight, loop held once, longest 30 ms by render, "
        "1 cancelled, 1 failed, 1 not ended, done after 100 ms."
    )


def test_waits_in_turn_in_words() -> None:
    made = recording(trace("main", (0, 0.001, "get"), (0.05, 0.051, "put"), (0.099, 0.1, "")))
    assert describe(made) == "By hand: 1 task, waiting in turn in get and put, done after 100 ms."


def test_more_than_six_waits_are_not_all_listed() -> None:
    steps = [(n / 100, n / 100 + 0.001, f"ask{n}") for n in range(9)]
    described = describe(recording(trace("main", *steps, (0.095, 0.1, ""))))
    assert "ask0, ask1, ask2, ask3, ask4 and 4 more" in described


def test_a_request_is_answered_and_an_error_failed() -> None:
    assert describe(recording(trace("GET /users"))).endswith("answered after 100 ms.")
    failed = Recording([trace("main")], title="x", start=0, end=0.1, held=1, error=KeyError())
    assert describe(failed).endswith("failed after 100 ms.")


def test_a_request_that_goes_on_after_its_answer_is_done_at_the_end_and_not_answered_then() -> None:
    steps = (0.0, 0.001, ""), (0.099, 0.1, "")
    late = recording(trace("GET /users", *steps, answered=0.05))
    assert describe(late).endswith("1 going on after the answer, done after 100 ms.")
    at_once = recording(trace("GET /users", *steps, answered=0.0995))
    assert describe(at_once).endswith("answered after 100 ms.")
    written = said(draw([late]))
    assert "done after 100 ms" in written
    assert "answered after 100 ms" not in written
