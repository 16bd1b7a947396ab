"""What lesson 11 measures."""

import time

import pytest
from fastapi import FastAPI
from sqlalchemy import select

from looplab.shop.models import User
from looplab.stages import downloads
from looplab.stages.downloads import measured, read_stream, rows_missing, show_downloads

pytestmark = pytest.mark.anyio


async def two_rows():
    yield "id\n"
    yield "1\n2\n"


async def fails():
    yield "id\n"
    yield "1\n"
    raise LookupError


async def whole() -> str:
    return "id\n1\n2\n"


async def test_an_endpoint_is_served_and_read() -> None:
    run = await measured(whole, "whole")
    assert run.download.status == 200
    assert run.recording.title == "whole"
    assert run.recording.result is run.download
    assert run.memory >= 0


async def test_an_app_is_served_as_it_is() -> None:
    app = FastAPI()
    app.get("/export/users", status_code=201)(whole)
    assert (await measured(app, "app")).download.status == 201


async def test_of_several_rounds_the_one_without_a_pause_is_kept() -> None:
    asked = 0

    async def pauses_at_first() -> str:
        nonlocal asked
        asked += 1
        if asked == 1:
            time.sleep(0.5)  # noqa: ASYNC251
        return ""

    run = await measured(pauses_at_first, "paused", rounds=2)
    assert asked == 2
    assert run.longest_step < 0.5


async def test_nothing_is_measured_in_no_round() -> None:
    with pytest.raises(ValueError, match="at least once"):
        await measured(whole, "never", rounds=0)


async def test_a_stream_is_read_with_what_its_reader_learns_of_a_failure() -> None:
    read, cut = await read_stream(two_rows), await read_stream(fails)
    assert (read.status, read.lines, read.error) == (200, 3, None)
    assert (cut.status, cut.lines) == (200, 2)
    assert cut.error is not None


async def test_the_table_has_a_column_for_each_export(capsys: pytest.CaptureFixture[str]) -> None:
    run = await measured(whole, "whole")
    show_downloads({"one": run, "other": run})
    shown = capsys.readouterr().out
    assert "one" in shown
    assert "other" in shown
    assert "memory, MB" in shown


async def test_ten_who_leave_make_a_reader_by_offset_miss_ten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(downloads, "LEAVE", 7)

    async def by_offset(sessions, sent, after):
        page = select(User).order_by(User.created_at, User.id).offset(sent).limit(1_000)
        async with sessions() as session:
            return (await session.scalars(page)).all()

    assert await rows_missing(by_offset) == 7
