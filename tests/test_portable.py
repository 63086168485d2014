"""What some systems lack: Windows has no fcntl, no SIGHUP, and does not open folders."""

import importlib
import os
import signal
import sys

import pytest

from minitransformer.system import files, lock
from minitransformer.training import stop

MODULES = ("minitransformer.system.lock", "minitransformer.training.stop", "vision.trunk", "weights.download")


@pytest.fixture
def windows(monkeypatch):
    """Python without fcntl and SIGHUP; what was imported meanwhile is imported anew afterwards."""
    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.delattr(signal, "SIGHUP")
    yield
    monkeypatch.undo()
    for name in MODULES:
        importlib.reload(importlib.import_module(name))


def test_all_modules_load_without_fcntl_and_sighup(windows, tmp_path):
    for name in MODULES:
        importlib.reload(importlib.import_module(name))
    lock.lock_folder(tmp_path)  # holds nothing, and says nothing
    with (tmp_path / "file").open("wb") as file:
        lock.hold(file)
        lock.hold(file, wait=False)
    assert signal.SIGTERM in stop.SIGNALS
    assert len(stop.SIGNALS) == 2


def test_a_folder_that_cannot_be_opened_is_not_synced(monkeypatch, tmp_path):
    monkeypatch.setattr(os, "name", "nt")
    monkeypatch.setattr(os, "open", lambda *given: pytest.fail("Windows opens no folder"))
    files.sync_folder(tmp_path)
