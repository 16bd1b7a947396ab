"""Bars and curves, in the colours of the x-ray."""

from collections.abc import Mapping, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import StrMethodFormatter

from looplab.lab.colours import BAR, BOUND, CARD, DOUBTFUL, HELD, INK, RANGE, RULE, SERIES
from looplab.lab.lettering import cut, width_of

WIDTH = 7.6
LABELS = 0.42
"""The share of the width that labels may take."""
TICK = 9
MARKERS = ("o", "s", "^", "D", "v")


def plain(axes: Axes, grid: str) -> None:
    """Give axes the look of the course, with a grid along ``x`` or ``both``."""
    axes.set_facecolor(CARD)
    axes.grid(axis="both" if grid == "both" else "x", color=RULE, linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0, labelsize=TICK, labelcolor=INK)
    for side in ("top", "right", *(("left",) if grid == "x" else ())):
        axes.spines[side].set_visible(False)
    for spine in axes.spines.values():
        spine.set_color("#8d99a6")


def bars(
    names: Sequence[str],
    values: Sequence[float],
    *,
    unit: str,
    bounds: Sequence[float | None] = (),
    ranges: Sequence[tuple[float, float]] = (),
    labels: Sequence[str] = (),
    failed: Sequence[bool] = (),
) -> Figure:
    """Return horizontal bars, from the top in the order given.

    Args:
        names: a label per bar.
        values: a length per bar, in ``unit``.
        unit: the axis label.
        bounds: a predicted bound per bar, drawn as a mark across it; None for none.
        ranges: the least and the greatest value per bar, drawn as a thin line.
        labels: the text at the end of each bar; the value with three figures unless given.
        failed: whether a bar stands for something that failed, and is drawn in red.
    """
    height = 0.34 * len(names) + 0.62
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor=CARD)
    names = [cut(name, LABELS * WIDTH, TICK) for name in names]
    left = 0.25 + max(width_of(name, TICK) for name in names)
    axes = figure.add_axes(
        (left / WIDTH, 0.5 / height, (WIDTH - left - 0.25) / WIDTH, (height - 0.58) / height)
    )
    plain(axes, "x")
    places = range(len(names))
    colours = [HELD if place < len(failed) and failed[place] else BAR for place in places]
    axes.barh(places, values, height=0.6, color=colours, zorder=2)
    reach = max([*values, *(most for _, most in ranges), *(b for b in bounds if b is not None)])
    for place, (least, most) in enumerate(ranges):
        axes.plot([least, most], [place, place], color=RANGE, linewidth=1.4, zorder=3)
    for place, bound in enumerate(bounds):
        if bound is not None:
            axes.plot([bound] * 2, [place - 0.42, place + 0.42], color=BOUND, lw=2.2, zorder=4)
    for place, value in enumerate(values):
        end = max([value, *(m for _, m in ranges[place : place + 1])])
        end = max([end, *(b for b in bounds[place : place + 1] if b is not None)])
        axes.annotate(
            labels[place] if labels else f"{value:.3g}", (end, place), xytext=(5, 0),
            textcoords="offset points", va="center", size=8.5, color=INK,
        )  # fmt: skip
    axes.set_xlim(0, reach * 1.17 or 1)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_yticks(list(places), names, parse_math=False)
    axes.set_xlabel(unit, size=9, color=INK, loc="left")
    if any(bound is not None for bound in bounds):
        figure.text(
            1 - 0.25 / WIDTH, 0.12 / height, "▏predicted bound", color=BOUND, size=8.5,
            ha="right", va="center", weight="bold",
        )  # fmt: skip
    return figure


def waterfall(
    names: Sequence[str],
    values: Sequence[float],
    *,
    unit: str,
    bound: float | None = None,
    labels: Sequence[str] = (),
    ranges: Sequence[tuple[float, float]] = (),
    doubtful: Sequence[bool] = (),
) -> Figure:
    """Return what each step took off a quantity: a bar per step, from the value before to its own.

    The first bar is the whole of the first value; the last value stands whole once more at the end,
    in dark. A step that adds is drawn in red.

    Args:
        names: the first state, then each step, from the top.
        values: the quantity in the first state and after each step, in ``unit``.
        unit: the axis label.
        bound: a predicted bound of the last value, drawn as a mark across its bar.
        labels: the text beside each bar; the value with three figures unless given.
        ranges: the least and the greatest value of each state, drawn as a thin line.
        doubtful: whether a step can't be told from noise, and is drawn pale.

    Raises ValueError when there are fewer than two values, or not one for each name, or ``labels``,
    ``ranges`` or ``doubtful`` are not one for each value.
    """
    if len(values) < 2 or len(values) != len(names):
        raise ValueError(
            f"there are {len(names)} names and {len(values)} values; "
            "give two values or more, and a name for each"
        )
    for what, given in {"labels": labels, "ranges": ranges, "doubtful": doubtful}.items():
        if given and len(given) != len(values):
            raise ValueError(f"{what} has {len(given)} entries; give one for each value, or none")
    height = 0.3 * (len(names) + 1) + 0.62
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor=CARD)
    rows = [cut(name, LABELS * WIDTH, TICK) for name in (*names, "what is left")]
    left = 0.25 + max(width_of(name, TICK) for name in rows)
    axes = figure.add_axes(
        (left / WIDTH, 0.5 / height, (WIDTH - left - 0.25) / WIDTH, (height - 0.58) / height)
    )
    plain(axes, "x")
    ends = [0.0, *values[:-1]]
    texts = labels or [f"{value:.3g}" for value in values]
    most = [high for _, high in ranges] or values
    reach = max(1.02 * max(*values, *most, bound or 0), 1e-9)
    wide = WIDTH - left - 0.25
    for place, (end, value) in enumerate(zip(ends, values, strict=True)):
        room = max(1 - (width_of(texts[place], 8.5) + 0.1) / wide, 0.2)
        right = max(end, value, most[place])
        reach = max(reach, right / room)
        colour = BAR if value < end or not place else HELD
        if place and doubtful and doubtful[place]:
            colour = DOUBTFUL
        axes.barh(place, value - end, left=end, height=0.6, color=colour, zorder=2)
        if place:
            axes.plot([end, end], [place - 1.3, place + 0.3], color=RANGE, lw=0.8, zorder=3)
        if ranges:
            axes.plot(ranges[place], [place] * 2, color=RANGE, lw=1.4, zorder=4)
        axes.annotate(
            texts[place], (right, place), xytext=(5, 0), textcoords="offset points",
            va="center", size=8.5, color=INK,
        )  # fmt: skip
    last = len(values)
    axes.barh(last, values[-1], height=0.6, color=RANGE, zorder=2)
    axes.plot([values[-1]] * 2, [last - 1.3, last + 0.3], color=RANGE, lw=0.8, zorder=3)
    if bound is not None:
        axes.plot([bound] * 2, [last - 0.42, last + 0.42], color=BOUND, lw=2.2, zorder=4)
        figure.text(
            1 - 0.25 / WIDTH, 0.12 / height, "▏predicted bound", color=BOUND, size=8.5,
            ha="right", va="center", weight="bold",
        )  # fmt: skip
    axes.set_xlim(0, reach)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.set_yticks(range(len(rows)), rows, parse_math=False)
    axes.set_xlabel(unit, size=9, color=INK, loc="left")
    return figure


def curves(
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    x: str,
    y: str,
    dashed: Sequence[str] = (),
    log_x: bool = False,
    log_y: bool = False,
    mark_x: Mapping[str, float] | None = None,
    height: float = 2.7,
) -> Figure:
    """Return lines over one pair of axes.

    Args:
        series: by name, the x values and the y values.
        x: the label of the x axis, unit included.
        y: the label of the y axis, unit included.
        dashed: names of series that are predictions, drawn dashed and without points.
        log_x: whether the x axis is logarithmic.
        log_y: whether the y axis is logarithmic.
        mark_x: by text, places on the x axis marked by an upright line.
        height: inches.
    """
    figure = Figure(figsize=(WIDTH, height), dpi=100, facecolor=CARD, layout="constrained")
    axes = figure.add_subplot()
    plain(axes, "both")
    measured = 0
    for name, (across, up) in series.items():
        if name in dashed:
            axes.plot(across, up, color=BOUND, linestyle=(0, (4, 3)), linewidth=1.6, label=name)
        else:
            colour = SERIES[measured % len(SERIES)]
            few = len(across) <= 40
            marker = MARKERS[measured % len(MARKERS)] if few else ""
            axes.plot(across, up, color=colour, marker=marker, ms=4.5, linewidth=1.8, label=name)
            measured += 1
    if log_x:
        axes.set_xscale("log")
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,g}"))
    if log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    for text, place in (mark_x or {}).items():
        axes.axvline(place, color=BOUND, linestyle=(0, (1, 2)), linewidth=1.2)
        axes.annotate(
            text, (place, 1), xycoords=("data", "axes fraction"), xytext=(4, -2),
            textcoords="offset points", va="top", size=8.5, color=BOUND,
        )  # fmt: skip
    axes.set_xlabel(x, size=9, color=INK, loc="left")
    axes.set_ylabel(y, size=9, color=INK)
    if len(series) > 1:
        axes.legend(frameon=False, fontsize=8.5, labelcolor=INK)
    return figure
