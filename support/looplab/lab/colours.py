"""The colours of every picture, so that a saved one keeps them exactly."""

WAITING = "#c9dbf0"
RUNNING = "#1f4e79"
HELD = "#d1435b"
HELD_BAND = "#fbe4e8"
INK = "#1c2733"
QUIET_INK = "#54616f"
RULE = "#e3e8ee"
AXIS_LINE = "#8d99a6"
BRANCH = "#9fb0c3"
CARD = "#ffffff"
BAR = "#8db3dd"
RANGE = "#1f4e79"
BOUND = "#a85408"
DOUBTFUL = "#cfd6dd"
"""A change that can't be told from noise."""
SERIES = ("#1f4e79", "#d1435b", "#2c8a6f", "#a85408", "#7a5ea8")
SPANS = ("#e69f00", "#009e73", "#8a5fbf")
"""What is held, of Okabe and Ito's colours, which everybody can tell apart."""
QUEUES = ("#fdf1d6", "#d9f2e9", "#ece4f6")
HATCHES = ("#f0c15a", "#7cccb4", "#c0abe2")
"""What is queued for: a pale ground, hatched."""
TIMED_OUT_INK = "#a85408"
MARKED = "#6b3fa0"

ALL = (
    *(
        WAITING,
        RUNNING,
        HELD,
        HELD_BAND,
        INK,
        QUIET_INK,
        RULE,
        AXIS_LINE,
        BRANCH,
        CARD,
        BAR,
        RANGE,
        BOUND,
        DOUBTFUL,
    ),
    *(*SERIES, *SPANS, *QUEUES, *HATCHES, TIMED_OUT_INK, MARKED),
)
