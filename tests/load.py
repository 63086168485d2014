"""Load a `qa.serve` as many users, slow ones and hostile ones would, and say what it did.

python -m tests.load [--model DIR] [--requests 1000]

A server runs in a process of its own, on a free port. Each line is a measurement or a check; a check that fails makes
the status 1. What the server promises: docs/RELIABILITY.md.
"""

import http.client
import json
import re
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from minitransformer.system.errors import command_line
from minitransformer.system.flags import FlagParser, whole_number
from qa.answerer import SHIPPED
from qa.squad import read

QUESTIONS = Path(__file__).parent / "answerer_questions.json"
HOST = "127.0.0.1"
CHARACTERS = 80_000  # of the long passage
ENDS_WITHIN = 1.0  # seconds after Ctrl-C
GROWTH = 0.02  # of memory, over all requests

failures: list[str] = []


@command_line
def main() -> None:
    parser = FlagParser(prog="python -m tests.load", description=__doc__)
    parser.add_argument("--model", default=SHIPPED, help=f"a trained model's folder or name ({SHIPPED})")
    parser.add_argument("--requests", type=whole_number(at_least=50), default=1000, help="for the memory (1000)")
    flags = parser.parse_args()
    pairs = [(example.context, example.question) for example in read(QUESTIONS)]
    long = "\n".join(context for context, _ in pairs)
    long = (long * (CHARACTERS // len(long) + 1))[:CHARACTERS]

    with serving(flags.model) as (port, process):
        ask(port, *pairs[0])  # the first one is slower
        print("clients  questions/s  median s  slowest s")
        for clients in (1, 8, 32):
            throughput(port, pairs, clients)
        interleaving(port, pairs[0], long)
        gone(port, pairs[0], long)
        crowd(port, pairs[0])
        flat_memory(port, pairs, flags.requests, process.pid)
        ending(port, process, long)
    if failures:
        raise SystemExit(1)


@contextmanager
def serving(model: str) -> Iterator[tuple[int, subprocess.Popen]]:
    command = [sys.executable, "-m", "qa.serve", "--model", model, "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        yield int(re.search(r":(\d+)/", process.stdout.readline())[1]), process
    finally:
        process.kill()
        process.wait()


def send(port: int, passage: str, question: str) -> http.client.HTTPConnection:
    connection = http.client.HTTPConnection(HOST, port, timeout=120)
    body = json.dumps({"passage": passage, "question": question})
    connection.request("POST", "/answer", body, {"Content-Type": "application/json"})
    return connection


def ask(port: int, passage: str, question: str) -> float:
    """Seconds until the answer is there."""
    began = time.monotonic()
    connection = send(port, passage, question)
    reply = connection.getresponse()
    reply.read()
    connection.close()
    if reply.status != 200:
        raise RuntimeError(f"status {reply.status}")
    return time.monotonic() - began


def check(true: bool, what: str) -> None:
    print(f"{'ok    ' if true else 'FAILED'} {what}", flush=True)
    if not true:
        failures.append(what)


def throughput(port: int, pairs: list[tuple[str, str]], clients: int) -> None:
    count = max(2 * len(pairs), 2 * clients)
    began = time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        seconds = list(pool.map(lambda number: ask(port, *pairs[number % len(pairs)]), range(count)))
    rate = count / (time.monotonic() - began)
    print(f"{clients:>7}  {rate:>11.1f}  {statistics.median(seconds):>8.3f}  {max(seconds):>9.3f}", flush=True)


def interleaving(port: int, short: tuple[str, str], long: str) -> None:
    """A short question, asked every half second while a long passage is read."""
    began = time.monotonic()
    connection, seconds = send(port, long, short[1]), []
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: json.loads(connection.getresponse().read()))
        while not answer.done():
            seconds.append(ask(port, *short))
            time.sleep(0.2)
    tokens, whole = answer.result()["tokens"], time.monotonic() - began
    check(
        max(seconds) < whole / 2,
        f"a passage of {tokens:,} tokens takes {whole:.1f} s; {len(seconds)} short questions beside it took "
        f"{statistics.median(seconds):.2f} s, {max(seconds):.2f} at most",
    )


def gone(port: int, short: tuple[str, str], long: str) -> None:
    connections = [send(port, long, short[1]) for _ in range(10)]
    time.sleep(1)
    for connection in connections:
        connection.close()
    began = time.monotonic()
    ask(port, *short)
    check(time.monotonic() - began < 2, f"ten long requests whose clients leave: the next short one takes "
          f"{time.monotonic() - began:.2f} s")  # fmt: skip


def crowd(port: int, short: tuple[str, str]) -> None:
    """Half-open and slow connections, and fifty clients at once."""
    idle = [socket.create_connection((HOST, port)) for _ in range(450)]
    for connection in idle[:100]:
        connection.sendall(b"POST /answer HTTP/1.0\r\nHost: localhost\r\nContent-Le")
    seconds = ask(port, *short)
    check(seconds < 5, f"beside 450 connections that are silent or half-sent a question takes {seconds:.2f} s")
    for connection in idle:
        connection.close()
    time.sleep(0.5)
    outcomes = []
    with ThreadPoolExecutor(50) as pool:
        for outcome in pool.map(lambda _: attempt(lambda: ask(port, *short)), range(50)):
            outcomes.append(outcome)
    bad = [outcome for outcome in outcomes if outcome]
    check(not bad, f"fifty at once, all answered{': ' + bad[0] if bad else ''}")
    with socket.create_connection((HOST, port)) as slow:
        began = time.monotonic()
        slow.sendall(b"POST /answer HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 1000\r\n\r\n")  # fmt: skip
        slow.settimeout(1)
        while time.monotonic() - began < 60 and not attempt(lambda: slow.sendall(b" ") or poll(slow)):
            pass
        seconds = time.monotonic() - began
    check(seconds < 45, f"a sender of a byte a second is cut off after {seconds:.0f} s")


def poll(connection: socket.socket) -> None:
    """Raises where the other side has closed."""
    try:
        if not connection.recv(1):
            raise ConnectionResetError
    except TimeoutError:
        pass


def attempt(action: Callable[[], object]) -> str:
    """What went wrong, or nothing."""
    try:
        action()
    except (OSError, RuntimeError, http.client.HTTPException) as error:
        return f"{type(error).__name__}: {error}"
    return ""


def flat_memory(port: int, pairs: list[tuple[str, str]], count: int, pid: int) -> None:
    def half(count: int) -> int:
        with ThreadPoolExecutor(8) as pool:
            list(pool.map(lambda number: ask(port, *pairs[number % len(pairs)]), range(count)))
        status = Path(f"/proc/{pid}/status")
        return int(re.search(r"VmRSS:\s+(\d+)", status.read_text())[1]) if status.exists() else 0

    first, second = half(count // 2), half(count - count // 2)
    check(
        second < (1 + GROWTH) * first,
        f"{count:,} requests: {first / 1e3:.0f} MB after half, {second / 1e3:.0f} at the end",
    )


def ending(port: int, process: subprocess.Popen, long: str) -> None:
    connections = [send(port, long, "چرا؟") for _ in range(4)]
    time.sleep(1)
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    seconds = time.monotonic() - began
    check(seconds < ENDS_WITHIN and process.returncode == 0 and not err,
          f"Ctrl-C while four long passages are read: {seconds:.2f} s, status {process.returncode}")  # fmt: skip
    for connection in connections:
        connection.close()


if __name__ == "__main__":
    main()
