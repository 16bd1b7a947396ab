"""What CI cannot do on a machine is one sentence, and fails where nothing may be skipped."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from looplab.project import Project

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="runs bash and programs of Linux")

Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(course: Project, tmp_path: Path) -> Run:
    """Run a script of .ci where some programs always fail; nothing is fetched or mounted."""

    def script(name: str, *failing: str, **environment: str) -> subprocess.CompletedProcess[str]:
        for program in failing:
            stub = tmp_path / program
            stub.write_text("#!/bin/sh\nexit 1\n")
            stub.chmod(0o755)
        kept = {name: value for name, value in os.environ.items() if name != "COURSE_REQUIRE_ALL"}
        path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
        return subprocess.run(
            ["bash", str(course.root / ".ci" / name)],
            env=kept | {"PATH": path, "TMPDIR": str(tmp_path)} | environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )

    return script


@pytest.mark.parametrize(
    ("name", "failing", "sentence"),
    [
        ("python-3.14", ("python3.14", "unshare"), "Python 3.14 is not tested here: "),
        ("lowest", ("uv",), "The oldest versions are not tested here: "),
    ],
)
def test_a_part_that_a_machine_cannot_run_is_one_sentence_and_never_skipped_in_ci(
    run: Run, tmp_path: Path, name: str, failing: tuple[str, ...], sentence: str
) -> None:
    skipped = run(name, *failing)
    assert (skipped.returncode, skipped.stderr) == (0, "")
    assert skipped.stdout.startswith(sentence)
    assert len(skipped.stdout.splitlines()) == 1

    failed = run(name, *failing, COURSE_REQUIRE_ALL="1")
    assert failed.returncode == 1
    assert failed.stdout == skipped.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(failing), "left behind"


def test_no_script_of_ci_names_an_address(course: Project) -> None:
    texts = {path.name: path.read_text("utf-8") for path in (course.root / ".ci").iterdir()}
    assert len(texts) == 3
    assert [name for name, text in texts.items() if "http://" in text or "https://" in text] == []
