"""The instruments of the course: what a lesson imports to time, watch, predict and claim."""

from support.lab.claim import ClaimFailed, claim
from support.lab.clients import get, in_process, post, serve
from support.lab.compare import Comparison, compare
from support.lab.departures import leave, leave_early, until
from support.lab.dial import dial
from support.lab.display import show_note, show_picture, show_table
from support.lab.errors import LessonError
from support.lab.hygiene import caught_leaks, nothing_left_behind
from support.lab.knee import load_at_limits, show_knee
from support.lab.lag import loop_lag
from support.lab.load import LoadReport, load_test, show_loads
from support.lab.marks import mark, span
from support.lab.memory import peak_memory
from support.lab.predict import Prediction, predict
from support.lab.recording import Recording
from support.lab.session import start
from support.lab.units import ms
from support.lab.xray import show_xray, xray

__all__ = [
    "ClaimFailed",
    "Comparison",
    "LessonError",
    "LoadReport",
    "Prediction",
    "Recording",
    "caught_leaks",
    "claim",
    "compare",
    "dial",
    "get",
    "in_process",
    "leave",
    "leave_early",
    "load_at_limits",
    "load_test",
    "loop_lag",
    "mark",
    "ms",
    "nothing_left_behind",
    "peak_memory",
    "post",
    "predict",
    "serve",
    "show_knee",
    "show_loads",
    "show_note",
    "show_picture",
    "show_table",
    "show_xray",
    "span",
    "start",
    "until",
    "xray",
]
