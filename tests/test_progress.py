"""Progress: a bar on a terminal, a line with the time now and then in a file, nothing with --quiet."""

import io
import re
import sys
import types

import pytest

from minitransformer.system.progress import be_quiet, progress, say


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """Stands still, until a test moves it."""

    def __init__(self) -> None:
        self.now = 1_000_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def speaking():
    yield
    be_quiet(False)


def run(clock: Clock, seconds: float, steps: int, **settings: object) -> None:
    with progress(total=steps, unit="step", desc="training", **settings) as bar:
        bar._time = clock  # tqdm's own
        bar.start_t = bar.last_print_t = clock.now
        for step in range(steps):
            clock.now += seconds
            bar.set_postfix_str(f"loss {step}", refresh=False)
            bar.update()


def lines(text: str) -> list[str]:
    return [re.sub(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  ", "", line) for line in text.splitlines()]


def test_a_log_file_gets_a_line_every_30_seconds_and_one_at_the_end(capsys):
    run(Clock(), seconds=1, steps=100)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d  training: 30/100 step, 00:30<01:10,  1.00step/s, loss 29\n", err)
    assert [line.split(",")[0] for line in lines(err)] == [f"training: {n}/100 step" for n in (30, 60, 90, 100)]


def test_a_quick_run_gets_the_last_line_alone(capsys):
    run(Clock(), seconds=0.001, steps=600)
    assert [line.split(",")[0] for line in lines(capsys.readouterr().err)] == ["training: 600/600 step"]


def test_a_bar_that_would_not_stay_leaves_no_last_line(capsys):
    run(Clock(), seconds=0.001, steps=3, leave=False)
    assert capsys.readouterr().err == ""


def test_a_resumed_run_says_nothing_before_its_first_step(capsys):
    with progress(total=10, initial=5, desc="training"):
        pass
    assert capsys.readouterr().err == ""


def test_a_terminal_gets_the_bar(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    run(Clock(), seconds=1, steps=3)
    assert "100%|" in sys.stderr.getvalue()
    assert "\r" in sys.stderr.getvalue()


def test_other_processes_than_the_first_show_nothing(capsys):
    run(Clock(), seconds=40, steps=3, shown=False)
    assert capsys.readouterr().err == ""


def test_say_prints_lines(capsys):
    say("one", 2)
    assert capsys.readouterr().out == "one\n2\n"


def test_say_makes_room_on_a_terminal(monkeypatch, capsys):
    monkeypatch.setattr(sys, "stderr", Terminal())
    say("one")
    assert capsys.readouterr().out == "one\n"


def test_quiet_silences_both(capsys):
    be_quiet()
    say("one")
    run(Clock(), seconds=40, steps=3)
    assert capsys.readouterr() == ("", "")


def test_in_a_notebook_the_bar_is_tqdm_autos(monkeypatch):
    import tqdm.auto

    class ZMQInteractiveShell:
        """What a kernel of Jupyter calls its shell."""

    ipython = types.SimpleNamespace(get_ipython=ZMQInteractiveShell)
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setattr(tqdm.auto, "tqdm", lambda items, disable, **settings: ("bar", items, settings))
    assert progress([1, 2], unit="step") == ("bar", [1, 2], {"unit": "step"})
    monkeypatch.setattr(ipython, "get_ipython", lambda: None)  # IPython is loaded, by a library, in a common process
    assert not isinstance(progress([1, 2], unit="step", shown=False), tuple)
