"""`python -m qa.serve` where many ask at once, slowly, for too much, or go away. Figures: `python -m tests.load`."""

import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from qa import Answerer
from qa.serve import reader as reader_module
from qa.serve import server as server_module
from qa.serve.reader import Reader
from qa.serve.server import ADDRESS, POLICY
from qa.serve.turns import Turns
from test_ask import teach_capitals
from test_serve import CHECKOUT, FIELDS, FIRST, JSON, asked, request, running

LONG = "رود در شهر و کوه. " * 600 + FIRST.context  # some sixty windows of the small model


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return teach_capitals(tmp_path_factory.mktemp("serve"))


@pytest.fixture
def reader(folder, monkeypatch):
    """A reader that takes a fiftieth of a second for a batch, and counts them."""
    reader = Reader(Answerer(folder))
    predict_spans, reader.batches = reader.answerer.predict_spans, 0

    def slowly(features):
        reader.batches += 1
        time.sleep(0.02)
        return predict_spans(features)

    monkeypatch.setattr(reader.answerer, "predict_spans", slowly)
    monkeypatch.setattr(reader.answerer, "batch_tokens", 128)
    return reader


@pytest.fixture
def server(reader):
    with running(reader) as server:
        yield server


def wait_until(true, seconds=20):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def ask_and_leave_open(server, passage):
    """A connection on which the answer is still to come."""
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=60)
    connection.request("POST", "/answer", json.dumps(FIELDS | {"passage": passage}), JSON)
    return connection


# ------------------------------------------------------------------------------------------------ turns


def test_turns_are_taken_in_order_one_at_a_time():
    turns, order, inside = Turns(), [], []

    def take(number):
        with turns.turn(lambda: None):
            inside.append(number)
            time.sleep(0.01)
            assert inside == [number]
            order.append(inside.pop())

    with turns.turn(lambda: None):
        threads = []
        for number in range(5):
            threads.append(threading.Thread(target=take, args=(number,)))
            threads[-1].start()
            wait_until(lambda number=number: len(turns) == number + 1)
    for thread in threads:
        thread.join()
    assert order == [0, 1, 2, 3, 4]


def test_one_who_no_longer_waits_holds_nobody_up():
    turns = Turns()

    def leave():
        raise ConnectionAbortedError

    with turns.turn(lambda: None), pytest.raises(ConnectionAbortedError), turns.turn(leave):
        pass
    assert len(turns) == 0
    with turns.turn(lambda: None):
        pass


# ------------------------------------------------------------------------------------------------ many at once


def test_a_short_request_passes_between_the_batches_of_a_long_one(server, reader):
    long = ask_and_leave_open(server, LONG)
    wait_until(lambda: reader.batches > 2)
    assert asked(server, "/answer", **FIELDS)["answer"]["text"] == FIRST.answers[0].text
    assert reader.batches < 40, "the long one has not been read yet"
    said = json.loads(long.getresponse().read())
    assert said["windows"] > 50
    assert reader.batches > 50


def test_a_passage_read_in_turns_has_the_answer_of_one_read_at_once(server, folder):
    with ThreadPoolExecutor(4) as pool:
        told = list(pool.map(lambda _: asked(server, "/answer", **FIELDS | {"passage": LONG}), range(4)))
    answer = Answerer(folder)(FIRST.question, LONG)
    for said in told:
        assert (said["answer"]["text"], said["start"]) == (answer.text, answer.start)
        assert said["answer"]["score"] == pytest.approx(answer.score, abs=1e-4)


def test_work_ends_when_the_client_goes_away(server, reader):
    connection = ask_and_leave_open(server, LONG)
    wait_until(lambda: reader.batches > 2)
    connection.close()
    time.sleep(0.3)
    read = reader.batches
    time.sleep(0.3)
    assert reader.batches == read < 40


def test_none_of_two_hundred_parallel_requests_is_reset(server):
    def health(_):
        return request(server, "GET", "/health")[0]

    with ThreadPoolExecutor(200) as pool:
        assert set(pool.map(health, range(200))) == {200}


def test_connections_beyond_the_most_are_told_so_and_the_others_go_on(server):
    server.free = threading.Semaphore(2)
    idle = [socket.create_connection((ADDRESS, server.server_port)) for _ in range(2)]
    wait_until(lambda: not server.free._value)
    status, _, headers = request(server, "GET", "/health")
    assert (status, headers["Retry-After"]) == (503, "1")
    for connection in idle:
        connection.close()
    wait_until(lambda: server.free._value == 2)
    assert request(server, "GET", "/health")[0] == 200


# ------------------------------------------------------------------------------------------------ budgets


def test_a_request_of_too_many_tokens_is_refused_with_the_remedy(server, monkeypatch, reader):
    monkeypatch.setattr(reader_module, "MOST_TOKENS", 1000)
    status, said, _ = request(server, "POST", "/answer", FIELDS | {"passage": LONG})
    assert status == 413
    assert re.fullmatch(r"question and passage make [\d,]+ tokens, at most 1,000 are read at once: shorten .*qa\.ask",
                        said["error"])  # fmt: skip
    assert reader.batches == 0
    assert asked(server, "/answer", **FIELDS)["tokens"] < 1000


def test_a_request_that_takes_too_long_is_given_up(server, monkeypatch, reader):
    monkeypatch.setattr(server_module, "PATIENCE", 0.2)
    status, said, headers = request(server, "POST", "/answer", FIELDS | {"passage": LONG})
    assert (status, headers["Retry-After"]) == (503, "1")
    assert said["error"].startswith("no answer within 0.2 seconds, 0 others wait: ask again later, or shorten")
    assert 1 <= reader.batches < 50


def test_a_slow_sender_is_cut_off(server, monkeypatch):
    """A byte now and then: no single wait is long."""
    monkeypatch.setattr(server_module, "SENDING", 0.5)
    with socket.create_connection((ADDRESS, server.server_port)) as slow:
        slow.settimeout(0.1)
        slow.sendall(b"POST /answer HTTP/1.0\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                     b"Content-Length: 1000000\r\n\r\n")  # fmt: skip

        def cut_off():
            try:
                slow.sendall(b"a")
                return slow.recv(1) == b""
            except TimeoutError:
                return False
            except ConnectionError:
                return True

        wait_until(cut_off)
    assert request(server, "GET", "/health")[0] == 200


def test_health_tells_what_waits_and_what_is_read_at_most(server):
    status, said, headers = request(server, "GET", "/health")
    assert (status, said) == (200, {"waiting": 0, "most_tokens": 32_768, "patience": 60})
    assert headers["Content-Security-Policy"] == POLICY
    assert request(server, "GET", "/health", headers={"Host": "evil.example"})[0] == 403
    assert request(server, "GET", "/health", headers={"Origin": "http://evil.example"})[0] == 403


@pytest.mark.parametrize("line", [b"PUT / HTTP/1.0", b"no request", b"GET / HTTP/9.9", b"G" * 70_000])
def test_what_http_server_refuses_itself_has_the_policy_too(server, line):
    with socket.create_connection((ADDRESS, server.server_port), timeout=60) as client:
        client.sendall(line + b"\r\nHost: localhost\r\n\r\n")
        reply = b""
        while part := client.recv(65536):
            reply += part
    head, body = reply.split(b"\r\n\r\n", 1)
    assert f"Content-Security-Policy: {POLICY}".encode() in head
    assert set(json.loads(body)) == {"error"}


@pytest.mark.parametrize("seconds", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("path", ["/answer", "/attention"])
def test_ctrl_c_while_torch_computes_ends_it(folder, path, seconds):
    command = [sys.executable, "-m", "qa.serve", "--model", str(folder), "--port", "0"]
    process = subprocess.Popen(command, cwd=CHECKOUT, env=os.environ | {"OMP_NUM_THREADS": "2"},
                               stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)  # fmt: skip
    port = int(re.search(r":(\d+)/", process.stdout.readline())[1])
    fields = FIELDS | {"passage": LONG * 2} | ({} if path == "/answer" else {"window": 0, "layer": 0, "head": 0})
    connections = []
    for _ in range(8):
        connections.append(http.client.HTTPConnection(ADDRESS, port, timeout=60))
        connections[-1].request("POST", path, json.dumps(fields), JSON)
    time.sleep(seconds)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "\nended\n", "")
    for connection in connections:
        connection.close()
