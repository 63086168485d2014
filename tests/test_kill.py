"""A short run of `python -m tests.kill`, and of what it compares by."""

import os
import re
import subprocess
import sys
from pathlib import Path

from tests import kill


def test_a_run_killed_at_any_moment_goes_on_to_the_same_bytes():
    """In a process of its own, which has trained nothing yet: torch does not train in forks of one that has."""
    command = [sys.executable, "-m", "tests.kill", "--rounds", "1", "--operations", "4", "--seed", "5"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"\nand 4 at operations: [4-7] kills hit, \d+ resumes, 0 failures\n$", done.stdout), done.stdout


def test_a_difference_between_two_runs_is_seen_but_not_one_of_time(tmp_path):
    for name, loss, speed in (("a", 1, 5), ("b", 1, 6), ("c", 2, 5)):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "log.csv").write_text(f"step,loss,tokens_per_second\n1,{loss},{speed}\n")
    runs = {name: kill.contents(tmp_path / name) for name in "abc"}
    assert kill.differences(runs["a"], runs["b"]) == []
    assert kill.differences(runs["a"], runs["c"]) == ["log.csv"]
    (tmp_path / "b/model/.config.json.abcd1234.tmp").touch()
    (tmp_path / "b/extra").mkdir()
    assert kill.differences(runs["a"], kill.contents(tmp_path / "b")) == ["extra", "model/.config.json.abcd1234.tmp"]
