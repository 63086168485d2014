"""Training scripts on several processes, as torchrun starts them, but forked from one that has imported torch."""

import multiprocessing
import os
import socket
from collections.abc import Callable
from multiprocessing.connection import Connection, wait

import tiny

TIMEOUT = 120.0  # seconds for all processes of a job

_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(["train_qa", "train_mlm", "train_vit", "tiny"])


def run(processes: int, main: Callable[[], None], *flags: object) -> list[tiny.Outcome]:
    """Call a script's `main` in so many processes of one job. What each left behind, by rank."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [_context.Pipe(duplex=False) for _ in range(processes)]
    children = [
        _context.Process(target=_work, args=(writer, rank, processes, port, main, flags))
        for rank, (_, writer) in enumerate(pipes)
    ]
    for child in children:
        child.start()
    for _, writer in pipes:
        writer.close()
    try:
        return [_receive(reader, rank) for rank, (reader, _) in enumerate(pipes)]
    finally:
        for child in children:
            child.kill()
            child.join()


def _receive(reader: Connection, rank: int) -> tiny.Outcome:
    assert wait([reader], TIMEOUT), f"process {rank} has not ended"
    return reader.recv()  # EOFError: it ended without a word, and what it printed stands above


def _work(
    writer: Connection, rank: int, processes: int, port: int, main: Callable[[], None], flags: tuple[object, ...]
) -> None:
    if processes > 1:
        places = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        os.environ.update({name: str(place) for name, place in places.items()})
        os.environ.update({"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
    writer.send(tiny.call(main, *flags))
