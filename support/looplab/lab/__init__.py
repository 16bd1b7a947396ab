"""The instruments of the course: what a lesson imports to time, watch, predict and claim."""

from looplab.lab.claim import ClaimFailed, claim
from looplab.lab.clients import get, in_process, post, serve
from looplab.lab.compare import Comparison, compare
from looplab.lab.departures import leave, leave_early, until
from looplab.lab.dial import dial
from looplab.lab.display import show_note, show_picture, show_table
from looplab.lab.errors import LessonError
from looplab.lab.hygiene import caught_leaks, nothing_left_behind
from looplab.lab.knee import load_at_limits, show_knee
from looplab.lab.lag import loop_lag
from looplab.lab.load import LoadReport, load_test, show_loads
from looplab.lab.marks import mark, span
from looplab.lab.memory import peak_memory
from looplab.lab.predict import Prediction, predict
from looplab.lab.recording import Recording
from looplab.lab.rounds import Rounds, load_rounds, show_rounds
from looplab.lab.session import start
from looplab.lab.units import ms
from looplab.lab.xray import show_xray, xray

__all__ = [
    "ClaimFailed",
    "Comparison",
    "LessonError",
    "LoadReport",
    "Prediction",
    "Recording",
    "Rounds",
    "caught_leaks",
    "claim",
    "compare",
    "dial",
    "get",
    "in_process",
    "leave",
    "leave_early",
    "load_at_limits",
    "load_rounds",
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
    "show_rounds",
    "show_table",
    "show_xray",
    "span",
    "start",
    "until",
    "xray",
]
