"""The explorable picture's data, exact for schedules written by hand, and how it is saved."""

import asyncio
import inspect
import json
import random
from typing import Any

import pytest

from looplab.lab import explorer
from looplab.lab.explorer import MIME, data_of, explorable, fragment_of, kept, packed, unpacked
from looplab.lab.places import shown_file, spots_of
from looplab.lab.recording import Recording
from looplab.lab.trace import Label, Stretch, TaskTrace
from looplab.lab.xray import show_xray, xray

Step = tuple[float, float, str]


def trace(name: str, *steps: Step, parent: TaskTrace | None = None, **others: Any) -> TaskTrace:
    made = TaskTrace(qualified=name, parent=parent, loop=0, ours=True, outcome="done")
    made.steps.extend(steps)
    for field, value in others.items():
        setattr(made, field, value)
    return made


def recording(*traces: TaskTrace, end: float = 0.1, **others: Any) -> Recording:
    settings: dict[str, Any] = {
        "title": "by hand",
        "start": 0.0,
        "end": end,
        "held": 0.01,
        **others,
    }
    return Recording(traces, **settings)


def marked(name: str) -> Label:
    label = Label(name)
    label.code = marked.__code__
    return label


def test_times_are_whole_microseconds_each_from_the_end_of_the_step_before() -> None:
    one = trace("page", (7.0, 7.0015, ""), (7.02, 7.05, ""), (7.0999996, 7.1, ""))
    (panel,) = data_of(recording(one, start=7.0, end=7.1))["panels"]
    (lane,) = panel["lanes"]
    assert lane["steps"] == [0, 1500, 18_500, 30_000, 50_000, 0]
    assert (panel["end"], panel["held"], lane["until"]) == (100_000, 10_000, 100_000)
    assert (panel["title"], panel["verb"]) == ("by hand", "done")
    assert panel["said"].startswith("by hand: 1 task, ")


def test_a_lane_refers_to_names_by_their_places_and_leaves_out_what_is_empty() -> None:
    parent = trace("page", (0, 0.001, ""), (0.09, 0.1, ""))
    child = trace(
        "ask", (0.01, 0.011, ""), (0.05, 0.051, ""), parent=parent, outcome="failed",
        error="KeyError", made=0.002, marks=[(0.02, "half way")],
    )  # fmt: skip
    child.stretches += [Stretch("queues for slot", 0.011, 0.03), Stretch("holds slot", 0.03, 0.05)]
    (panel,) = data_of(recording(parent, child, watched=["slot"]))["panels"]
    first, second = panel["lanes"]
    names = panel["names"]
    assert first == {
        "name": 0,
        "until": 100_000,
        "steps": [0, 1000, 89_000, 10_000],
        "spots": [0, 0],
    }
    assert [names[lane["name"]] for lane in panel["lanes"]] == ["page", "ask"]
    assert (second["depth"], second["made"], second["outcome"]) == (1, 2000, "failed")
    assert second["error"] == "KeyError"
    assert [(at, names[text]) for at, text in second["marks"]] == [(20_000, "half way")]
    spans = [(names[name], began, length) for name, began, length in second["spans"]]
    assert spans == [("queues for slot", 11_000, 19_000), ("holds slot", 30_000, 20_000)]
    assert [names[place] for place in panel["queues"]] == ["queues for slot"]
    assert [names[place] for place in panel["holds"]] == ["holds slot"]


def test_the_await_chain_after_each_step_is_that_of_the_coroutines_that_had_not_ended() -> None:
    log = [(0, 0), marked("load"), marked("ask"), (1, 1), marked("save"), (2, 0)]
    one = trace(
        "page", (0, 0.001, "ask"), (0.01, 0.011, "save"), (0.02, 0.021, ""), (0.03, 0.031, ""),
        log=log,
    )  # fmt: skip
    names = [spot.names for spot in spots_of(recording(one).lanes[0])]
    assert names == [("load", "ask"), ("load", "save"), (), ()]


def test_tasks_that_a_library_keeps_fold_into_the_lane_around_them() -> None:
    parent = trace("page", (0, 0.001, ""), (0.09, 0.1, ""))
    kept_by_a_library = trace("pump", (0.02, 0.05, ""), parent=parent, ours=False)
    (panel,) = data_of(recording(parent, kept_by_a_library))["panels"]
    (lane,) = panel["lanes"]
    assert lane["below"] == [20_000, 30_000]


async def first_wait() -> None:
    await asyncio.sleep(0.001)
    await asyncio.sleep(0.002)


async def around() -> None:
    await first_wait()
    await asyncio.sleep(0)


@pytest.mark.anyio
async def test_a_spot_is_the_line_of_the_readers_code_that_waits() -> None:
    recording = await xray(around(), show=False)
    spots = spots_of(recording.lanes[0])
    inside = inspect.getsourcelines(first_wait)[1]
    outside = inspect.getsourcelines(around)[1]
    lines = [spot.place and spot.place.line for spot in spots]
    assert lines == [inside + 1, inside + 2, outside + 2, None]
    first = spots[0]
    assert first.names == ("first_wait",)
    assert first.place is not None
    assert first.place.text == "await asyncio.sleep(0.001)"
    assert str(first.place) == f"{shown_file(__file__)}:{inside + 1}"


@pytest.mark.parametrize(
    ("path", "shown"),
    [
        (explorer.__file__, "looplab/lab/explorer/__init__.py"),
        ("/home/somebody/elsewhere/deep/below/app.py", "deep/below/app.py"),
    ],
)
def test_a_file_is_named_without_folders_of_this_machine(path: str, shown: str) -> None:
    assert shown_file(path) == shown


def test_a_file_below_the_working_folder_is_named_from_there(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert shown_file(str(tmp_path / "src" / "app.py")) == "src/app.py"


def test_what_is_packed_can_be_unpacked() -> None:
    data = data_of(recording(trace("page", (0, 0.02, "ask"))))
    assert unpacked(json.loads(json.dumps(packed(data)))) == json.loads(json.dumps(data))


@pytest.mark.parametrize("saved", [{}, {"version": 2, "packed": ""}, {"version": 1, "packed": "?"}])
def test_what_was_not_packed_is_refused(saved: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="saved is "):
        unpacked(saved)


def crowd(count: int, names: int = 1) -> Recording:
    """Return a run of ``count`` lanes of which the 70th holds the loop."""
    root = trace("page", (0, 0.001, ""), (0.99, 1.0, ""))
    lanes = [
        trace(
            f"item {n % names}", (n / 1e4, n / 1e4 + (0.02 if n == 70 else n % 7 / 1e5), "ask"),
            (0.5 + n / 1e4, 0.5 + n / 1e4 + n % 5 / 1e5, ""), parent=root,
        )
        for n in range(count)
    ]  # fmt: skip
    return recording(root, *lanes, end=1.0, unfold=False)


def test_a_recording_that_fits_is_kept_whole() -> None:
    data = data_of(crowd(100))
    saved = kept(data)
    assert saved is not None
    assert unpacked(saved) == json.loads(json.dumps(data))


@pytest.mark.parametrize("names", [1, 1500])
def test_a_recording_that_does_not_fit_is_thinned_and_says_so(names: int) -> None:
    saved = kept(data_of(crowd(1500, names)), most=4_000)
    assert saved is not None
    assert len(saved["packed"]) <= 4_000
    (panel,) = unpacked(saved)["panels"]
    assert panel["left_out"] == 1501 - len(panel["lanes"])
    longest = max(length for lane in panel["lanes"] for length in lane["steps"][1::2])
    assert longest == 20_000  # the hold is still there
    assert all(lane["name"] < len(panel["names"]) for lane in panel["lanes"])
    assert panel["names"][panel["lanes"][-1]["name"]].startswith("item ")
    if names == 1:
        assert panel["lanes"][1]["of"] == 1500


def test_short_steps_of_one_lane_are_joined_where_they_take_too_much_room() -> None:
    steps = [(n / 1e3, n / 1e3 + (n * n) % 17 / 1e5, "ask") for n in range(4_000)]
    saved = kept(data_of(recording(trace("page", *steps), end=4.0)), most=3_000)
    assert saved is not None
    (panel,) = unpacked(saved)["panels"]
    (lane,) = panel["lanes"]
    assert panel["joined"] == 2_000
    assert sum(lane["steps"]) <= lane["until"]
    assert len(lane["steps"]) == 2 * len(lane["spots"]) <= 4_000


def test_short_steps_that_were_joined_never_look_like_a_hold_of_the_loop() -> None:
    chance = random.Random(1)
    steps = [(n / 1e3, n / 1e3 + chance.random() / 2e3, "ask") for n in range(9_000)]
    steps[500] = (0.5, 0.504, "ask")  # the only hold
    steps[501:504] = []
    run = recording(trace("page", *steps), end=9.0, held=0.003)
    saved = kept(data_of(run), most=12_000)
    assert saved is not None
    (panel,) = unpacked(saved)["panels"]
    lengths = panel["lanes"][0]["steps"][1::2]
    assert len(lengths) < 5_000  # joined indeed
    assert [length for length in lengths if length >= panel["held"]] == [4_000]
    assert panel["joined"] < panel["held"]


def test_nothing_is_kept_where_there_is_no_room_at_all() -> None:
    assert kept(data_of(crowd(5)), most=10) is None
    with pytest.raises(ValueError, match="most is 0; it must be above 0"):
        kept(data_of(crowd(5)), most=0)


def test_what_is_no_recording_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one recording"):
        data_of()
    with pytest.raises(TypeError, match="recordings holds 'x'"):
        explorable("x")  # ty: ignore[invalid-argument-type]
    with pytest.raises(ValueError, match="data has"):
        fragment_of({})


def test_a_fragment_needs_nothing_from_elsewhere_and_has_no_ids_in_the_page() -> None:
    fragment = explorable(crowd(3), title='a "title" <b>')
    markup = fragment.partition("<script>")[0]
    assert "src=" not in markup
    assert "id=" not in markup
    assert fragment.count("</script>") == 1
    assert "http" not in fragment.replace("http://www.w3.org/2000/svg", "")
    assert data_of(crowd(3))["panels"][0]["said"] in markup


def test_an_output_carries_the_still_picture_inside_the_live_one_and_the_recording() -> None:
    from looplab.lab.display import collected

    with collected() as outputs:
        show_xray(crowd(3))
    data = outputs[0]["data"]
    assert set(data) == {"image/png", "text/html", "text/plain", MIME}
    assert data["image/png"] in data["text/html"]
    assert unpacked(data[MIME]) == json.loads(json.dumps(data_of(crowd(3))))
