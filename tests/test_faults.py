"""Runs that are killed from outside, by the benchmark that makes the table of docs/reliability.md."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.parametrize("group", ["kills", "saves", "preemption", "told", "terminals"])
def test_a_run_that_is_killed_equals_one_that_is_not(group, tmp_path):
    (tmp_path / "page.md").touch()
    command = [
        sys.executable, "-m", "benchmarks.faults", "--only", group, "--kills", "3", "--work", str(tmp_path / "work"),
        "--out", str(tmp_path / "page.md"),
    ]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "work" / f"{group}.json").read_text())
    assert sum(times for _, _, times, _, _ in rows) >= 3
    for _, _, _, outcome, _ in rows:
        assert "NOT" not in outcome and "False" not in outcome
