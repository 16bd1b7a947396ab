"""The colours of every picture, so that a saved one keeps them exactly."""

WAITING = "#c9dbf0"
RUNNING = "#1f4e79"
HELD = "#d1435b"
HELD_BAND = "#fbe4e8"
INK = "#1c2733"
QUIET_INK = "#54616f"
RULE = "#e3e8ee"
CARD = "#ffffff"
BAR = "#8db3dd"
RANGE = "#1f4e79"
BOUND = "#a85408"
SERIES = ("#1f4e79", "#d1435b", "#2c8a6f", "#a85408", "#7a5ea8")

ALL = (WAITING, RUNNING, HELD, HELD_BAND, INK, QUIET_INK, RULE, CARD, BAR, RANGE, BOUND, *SERIES)
