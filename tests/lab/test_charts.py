from typing import Any

import numpy as np
import pytest
from matplotlib.artist import Artist
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from looplab.lab.charts import bars, curves, waterfall
from looplab.lab.colours import BAR, DOUBTFUL, HELD, RANGE


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if isinstance(text, Text)]


def out_of_view(figure: Figure) -> set[Artist]:
    """Return the labels of ticks beyond the end of their axis, which are not drawn."""
    hidden: set[Artist] = set()
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        least, most = sorted(axis.get_view_interval())
        for tick in (*axis.get_major_ticks(), *axis.get_minor_ticks()):
            if not least <= tick.get_loc() <= most:
                hidden |= {tick.label1, tick.label2}
    return hidden


def inside(figure: Figure) -> bool:
    """Return whether every word that is drawn stands inside the figure."""
    figure.set_dpi(200)
    figure.draw_without_rendering()
    hidden = out_of_view(figure)
    edge = figure.bbox.padded(0.5)
    boxes = [
        text.get_window_extent()
        for text in figure.findobj(Text)
        if isinstance(text, Text) and text.get_visible() and text.get_text() and text not in hidden
    ]
    return all(
        edge.x0 <= box.x0 and box.x1 <= edge.x1 and edge.y0 <= box.y0 and box.y1 <= edge.y1
        for box in boxes
    )


def test_bars_stand_in_order_with_their_values() -> None:
    figure = bars(["one by one", "gather"], [300, 51.24], unit="milliseconds")
    (axes,) = figure.axes
    assert [label.get_text() for label in axes.get_yticklabels()] == ["one by one", "gather"]
    lengths = [patch.get_width() for patch in axes.patches if isinstance(patch, Rectangle)]
    assert lengths == pytest.approx([300, 51.24])
    assert axes.yaxis_inverted()
    assert {"300", "51.2", "milliseconds"} <= set(texts(figure))
    assert inside(figure)


def test_bars_with_bounds_ranges_and_labels() -> None:
    figure = bars(
        ["a", "b"],
        [3, 1],
        unit="s",
        bounds=[2.5, None],
        ranges=[(2, 4), (1, 1)],
        labels=["3 s", "1 s"],
    )
    assert {"3 s", "1 s", "▏predicted bound"} <= set(texts(figure))
    assert inside(figure)
    assert "▏predicted bound" not in texts(bars(["a"], [1], unit="s", bounds=[None]))


def test_a_bar_of_what_failed_is_red() -> None:
    (axes,) = bars(["a", "b"], [3, 1], unit="s", failed=[False, True]).axes
    assert [to_hex(patch.get_facecolor()) for patch in axes.patches] == [BAR, HELD]


def test_bars_of_nothing_and_with_long_names_fit() -> None:
    assert inside(bars(["a"], [0], unit="s"))
    assert inside(bars(["a name that goes on for " + "ever " * 6], [1], unit="s"))


def test_curves_have_labels_a_legend_and_marks() -> None:
    figure = curves(
        {"measured": ([1, 10, 100], [1, 2, 3]), "predicted": ([1, 100], [1, 3])},
        x="branches", y="seconds", dashed=["predicted"], log_x=True, mark_x={"pool": 20},
    )  # fmt: skip
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    assert {"measured", "predicted", "branches", "seconds", "pool"} <= set(texts(figure))
    assert axes.get_lines()[1].get_linestyle() == "--"
    assert axes.get_ylim()[0] == 0
    assert inside(figure)


def test_one_curve_needs_no_legend() -> None:
    figure = curves({"measured": ([1, 2], [1, 2])}, x="x", y="y", log_y=True)
    assert figure.axes[0].get_legend() is None
    assert figure.axes[0].get_yscale() == "log"


def test_a_waterfall_falls_from_each_value_to_the_next() -> None:
    names = ["first", "one client", "gathered", "a worse step"]
    figure = waterfall(names, [3, 1, 1, 1.5], unit="seconds", bound=0.5)
    (axes,) = figure.axes
    shown = [label.get_text() for label in axes.get_yticklabels()]
    assert shown == [*names, "what is left"]
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    spans = [sorted((bar.get_x(), bar.get_x() + bar.get_width())) for bar in drawn]
    assert spans == [[0, 3], [1, 3], [1, 1], [1, 1.5], [0, 1.5]]
    colours = [to_hex(bar.get_facecolor()) for bar in drawn]
    assert [colours[place] for place in (0, 1, 3, 4)] == [BAR, BAR, HELD, RANGE]
    assert {"3", "1", "1.5", "seconds", "▏predicted bound"} <= set(texts(figure))
    assert axes.yaxis_inverted()
    assert inside(figure)


def test_a_waterfall_with_labels_and_long_names_fits() -> None:
    names = ["first", "a step with a name that goes on for " + "ever " * 6]
    figure = waterfall(names, [2, 1], unit="s", labels=["2 s", "1 s, no errors"])
    assert {"2 s", "1 s, no errors"} <= set(texts(figure))
    assert "▏predicted bound" not in texts(figure)
    assert inside(figure)


def test_a_waterfall_shows_ranges_and_what_cannot_be_told_from_noise() -> None:
    figure = waterfall(
        ["first", "told", "not told", "worse, not told"],
        [3, 2, 1.9, 2],
        unit="s",
        ranges=[(2.9, 3.4), (1.9, 2.1), (1.8, 2.0), (1.9, 2.2)],
        doubtful=[True, False, True, True],
    )
    (axes,) = figure.axes
    drawn = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    colours = [to_hex(bar.get_facecolor()) for bar in drawn]
    assert colours == [BAR, BAR, DOUBTFUL, DOUBTFUL, RANGE]
    lines = [list(np.asarray(line.get_xdata(), dtype=float)) for line in axes.lines]
    assert [2.9, 3.4] in lines
    assert [1.9, 2.2] in lines
    assert axes.get_xlim()[1] > 3.4
    assert inside(figure)


@pytest.mark.parametrize("what", ["labels", "ranges", "doubtful"])
def test_a_waterfall_needs_one_of_each_for_each_value(what: str) -> None:
    given: dict[str, Any] = {what: [(1, 2)]}
    with pytest.raises(ValueError, match=f"{what} has 1 entries"):
        waterfall(["a", "b"], [2, 1], unit="s", **given)


@pytest.mark.parametrize(("names", "values"), [(["a"], [1]), (["a", "b"], [1]), ([], [])])
def test_a_waterfall_needs_a_value_for_each_name(names, values) -> None:
    with pytest.raises(ValueError, match="a name for each"):
        waterfall(names, values, unit="s")
