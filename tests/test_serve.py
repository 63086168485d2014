"""`python -m qa.serve`: what it answers over HTTP, what it refuses, and its page in a headless Chromium."""

import contextlib
import http.client
import io
import itertools
import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from PIL import Image

from browser import Page, chromium, find_chromium
from minitransformer.attention_weights import attention_weights
from qa import Answerer
from qa.serve import __main__ as command
from qa.serve.reader import Reader
from qa.serve.server import ADDRESS, Server
from test_ask import teach_capitals
from tiny import call, examples
from weights import load_pretrained, load_tokenizer

CHECKOUT = Path(__file__).parents[1]
FIRST, *_ = examples()
FIELDS = {"passage": FIRST.context, "question": FIRST.question}
JSON = {"Content-Type": "application/json"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return teach_capitals(tmp_path_factory.mktemp("serve"))


@pytest.fixture(scope="module")
def model(folder):
    return load_pretrained(folder, "question-answering")


@pytest.fixture(scope="module")
def tokenizer(folder):
    return load_tokenizer(folder)


@contextlib.contextmanager
def running(reader: Reader) -> Iterator[Server]:
    with Server(reader, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def server(folder):
    with running(Reader(Answerer(folder))) as server:
        yield server


def request(
    server: Server, method: str, path: str, body: object = None, headers: dict[str, str] | None = None
) -> tuple[int, Any, http.client.HTTPMessage]:
    """Status, contents and headers. A body that is no text and no bytes goes as JSON."""
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=60)
    data = body if isinstance(body, bytes | str | None) else json.dumps(body)
    connection.request(method, path, data, JSON if headers is None and data is not None else headers or {})
    reply = connection.getresponse()
    contents = reply.read().decode()
    connection.close()
    is_json = reply.headers.get_content_type() == "application/json"
    return reply.status, json.loads(contents) if is_json else contents, reply.headers


def asked(server: Server, path: str, **fields: object) -> Any:
    status, value, _ = request(server, "POST", path, fields)
    assert status == 200, value
    return value


# ------------------------------------------------------------------------------------------------ answers


def test_the_answer_is_that_of_the_answerer(server, folder):
    said = asked(server, "/answer", **FIELDS)
    answer = Answerer(folder)(FIRST.question, FIRST.context)
    assert said["answer"] == {"text": answer.text, "score": answer.score, "probability": answer.probability}
    assert said["none"] == answer.none._asdict()
    assert said["others"] == [other._asdict() for other in answer.others[:3]]
    assert FIRST.context[said["start"] :].startswith(said["answer"]["text"])
    assert said["answer"]["text"] == FIRST.answers[0].text
    assert (said["windows"], said["window"]) == (1, 0)


def test_the_window_has_the_tokenizers_tokens_and_the_models_logits(server, model, tokenizer):
    said = asked(server, "/window", **FIELDS, window=0)
    pair = tokenizer.encode(FIRST.question, FIRST.context)
    assert [token["text"] for token in said["tokens"]] == pair.tokens
    parts = {None: "special", 0: "question", 1: "passage"}
    assert [token["part"] for token in said["tokens"]] == [parts[part] for part in pair.sequence_ids]
    inside = [(token["begin"], token["end"]) for token in said["tokens"] if token["part"] == "passage"]
    places = zip(pair.offsets, pair.sequence_ids, strict=True)
    assert inside == [offsets for offsets, part in places if part == 1]
    with torch.no_grad():
        logits = model(torch.tensor([pair.ids]), torch.tensor([pair.type_ids]))
    for name, expected in zip(("start", "end"), logits, strict=True):
        torch.testing.assert_close(torch.tensor([said[name]]), expected, rtol=1e-5, atol=1e-5)


def test_every_window_of_a_long_passage_can_be_seen(server):
    passage = "رود در شهر و کوه. " * 60 + FIRST.context
    said = asked(server, "/answer", passage=passage, question=FIRST.question)
    assert said["windows"] > 3
    windows = [
        asked(server, "/window", passage=passage, question=FIRST.question, window=n) for n in range(said["windows"])
    ]
    covered = {
        place
        for window in windows
        for token in window["tokens"]
        if token["part"] == "passage"
        for place in range(token["begin"], token["end"])
    }
    assert covered >= {place for place, character in enumerate(passage) if character != " "}
    begins = [token["begin"] for token in windows[said["window"]]["tokens"]]
    assert said["start"] in begins, "the window that is shown first has the answer"


def test_attention_is_that_of_the_model_computed_once_for_a_window(server, model, tokenizer):
    pair = tokenizer.encode(FIRST.question, FIRST.context)
    weights = attention_weights(model, torch.tensor([pair.ids]), torch.tensor([pair.type_ids]))[:, 0]
    with mock.patch("qa.serve.reader.attention_weights", side_effect=attention_weights) as computed:
        for layer in range(model.config.layers):
            for head in range(model.config.heads):
                said = asked(server, "/attention", **FIELDS, window=0, layer=layer, head=head)
                assert (said["layers"], said["heads"]) == weights.shape[:2]
                shown = torch.tensor(said["rows"]) / 10_000
                torch.testing.assert_close(shown, weights[layer, head], rtol=0, atol=5.1e-5)
        assert computed.call_count == 1
        other = asked(server, "/attention", **FIELDS | {"question": "رود کجاست؟"}, window=0, layer=0, head=0)
        assert computed.call_count == 2
    assert len(other["rows"]) != len(weights[0, 0])


def test_the_page_comes_whole_and_forbids_everything_else(server):
    status, page, headers = request(server, "GET", "/")
    assert (status, headers.get_content_type()) == (200, "text/html")
    assert "/* STYLE */" not in page
    assert "--paper" in page
    assert not re.search(r"https?://|//\w+\.\w+|\bsrc=|@import|url\(", page)
    assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'sha256-")
    assert headers["X-Content-Type-Options"] == "nosniff"


# ------------------------------------------------------------------------------------------------ refusals


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "localhost:{port}.evil.example",
     "[::1]:{port}", "0.0.0.0:{port}", "localhost:1", ""],
)  # fmt: skip
def test_another_name_is_refused(server, method, host):
    """A hostile page whose name was made to point here (DNS rebinding) sends that name."""
    path, body = ("/", None) if method == "GET" else ("/answer", FIELDS)
    headers = {"Host": host.format(port=server.server_port), **JSON}
    status, said, _ = request(server, method, path, body, headers)
    assert (status, said) == (403, {"error": "this server is called 127.0.0.1 or localhost, and nothing else"})


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_its_own_names_and_origin_are_taken(server, host):
    host = f"{host}:{server.server_port}"
    assert request(server, "GET", "/", headers={"Host": host})[0] == 200
    headers = {"Host": host, "Origin": f"http://{host}", **JSON}
    assert request(server, "POST", "/answer", FIELDS, headers)[0] == 200


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "https://127.0.0.1:{port}", "http://127.0.0.1:1", ""]
)
def test_another_page_is_refused(server, origin):
    headers = {"Origin": origin.format(port=server.server_port), **JSON}
    status, said, _ = request(server, "POST", "/answer", FIELDS, headers)
    assert (status, said) == (403, {"error": "only the page of this server may ask it"})


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "", "json"]
)
def test_another_kind_of_body_is_refused(server, kind):
    """The three that a form of another page can send without asking are among them."""
    status, said, _ = request(server, "POST", "/answer", FIELDS, {"Content-Type": kind})
    assert (status, said) == (415, {"error": "send application/json"})


@pytest.mark.parametrize(
    ("length", "status", "problem"),
    [
        (None, 411, "send a Content-Length"),
        ("", 411, "send a Content-Length"),
        ("-1", 411, "send a Content-Length"),
        ("1e3", 411, "send a Content-Length"),
        ("٣", 411, "send a Content-Length"),
        ("2000001", 413, "at most 2,000,000 bytes: shorten the passage"),
        ("9" * 5000, 413, "at most 2,000,000 bytes: shorten the passage"),
    ],
)
def test_a_body_of_no_length_or_too_great_a_length_is_refused_unread(server, length, status, problem):
    connection = http.client.HTTPConnection(ADDRESS, server.server_port, timeout=60)
    connection.putrequest("POST", "/answer")
    connection.putheader("Content-Type", "application/json")
    if length is not None:
        connection.putheader("Content-Length", length.encode())
    connection.endheaders()
    reply = connection.getresponse()  # and no byte of the body was sent
    assert (reply.status, json.loads(reply.read())) == (status, {"error": problem})
    connection.close()


@pytest.mark.parametrize(
    ("path", "body", "problem"),
    [
        ("/answer", b"", "the request is not JSON in UTF-8"),
        ("/answer", b'{"passage": "a"', "the request is not JSON in UTF-8"),
        ("/answer", "پرسش".encode("cp1256"), "the request is not JSON in UTF-8"),
        ("/answer", b"[" * 100_000, "the request is not JSON in UTF-8"),
        ("/answer", b"1" * 5000, "the request is not JSON in UTF-8"),
        ("/answer", [], "the request is no object of passage, question"),
        ("/answer", {"passage": "a"}, "the request is no object of passage, question"),
        ("/answer", FIELDS | {"model": "/etc"}, "the request is no object of passage, question"),
        ("/answer", FIELDS | {"passage": 3}, "passage is no text"),
        ("/answer", FIELDS | {"question": None}, "question is no text"),
        ("/answer", FIELDS | {"question": " \n"}, "the question is empty: write one"),
        ("/answer", FIELDS | {"passage": ""}, "the passage is empty: write one"),
        ("/answer", FIELDS | {"passage": "a\ud800"}, "the passage is not UTF-8: convert it"),
        (
            "/answer",
            FIELDS | {"question": "چه " * 200},
            "question 1: it leaves room for 0 tokens of the context",
        ),
        ("/answer", FIELDS | {"question": "چ" * 10_001}, "the question is 10,001 characters long: shorten it"),
        ("/window", FIELDS | {"window": 1}, "window 1: the passage makes 1 of them, from 0 on"),
        ("/window", FIELDS | {"window": -1}, "window -1: the passage makes 1 of them, from 0 on"),
        ("/window", FIELDS | {"window": 10**400}, "the passage makes 1 of them"),
        ("/window", FIELDS | {"window": True}, "window is no whole number"),
        ("/window", FIELDS | {"window": 0.0}, "window is no whole number"),
        ("/window", FIELDS | {"window": float("nan")}, "window is no whole number"),
        ("/attention", FIELDS | {"window": 0, "layer": 2, "head": 0}, "the model has 2 layers of 4 heads"),
        ("/attention", FIELDS | {"window": 0, "layer": 0, "head": -1}, "the model has 2 layers of 4 heads"),
    ],
)
def test_a_request_that_makes_no_sense_is_refused(server, path, body, problem):
    status, said, _ = request(server, "POST", path, body)
    assert status == 400
    assert problem in said["error"]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/answer", 404), ("GET", "/../../../etc/passwd", 404), ("GET", "/?", 404), ("POST", "/", 404),
     ("POST", "/lock", 404), ("POST", "/__init__", 404), ("PUT", "/answer", 501), ("OPTIONS", "/answer", 501)],
)  # fmt: skip
def test_another_path_or_method_is_refused(server, method, path, status):
    assert request(server, method, path, FIELDS if method == "POST" else None)[0] == status


def test_a_client_that_goes_away_and_one_that_waits_disturb_nobody(server, capfd):
    with socket.create_connection((ADDRESS, server.server_port)) as idle:
        with socket.create_connection((ADDRESS, server.server_port)) as gone:
            gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")  # ends by a reset
            gone.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n\x1b[31m")
        assert asked(server, "/answer", **FIELDS)["answer"]["text"] == FIRST.answers[0].text
        idle.close()
    assert capfd.readouterr() == ("", "")


# ------------------------------------------------------------------------------------------------ the command


def test_a_port_in_use_is_told_in_one_line(folder, server):
    said = call(command.main, "--model", folder, "--port", server.server_port).refusal()
    assert said == (
        f"error: port {server.server_port} is in use; choose another: --port {server.server_port % 65535 + 1}"
    )


@pytest.mark.parametrize(
    ("flags", "problem"),
    [
        (("--port", "-1"), "-1 is below 0"),
        (("--port", "65536"), "--port 65536: the last one is 65535"),
        (("--prot", "1"), "unknown flag '--prot' (did you mean '--port'?)"),
        (("--model", "absent"), "absent: no such folder"),
    ],
)
def test_serve_refuses(folder, flags, problem):
    assert problem in call(command.main, "--model", folder, *flags).refusal()


def test_it_serves_this_machine_alone_until_ctrl_c(folder):
    command = [sys.executable, "-m", "qa.serve", "--model", str(folder), "--port", "0"]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=CHECKOUT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    said = process.stdout.readline()
    port = int(re.fullmatch(r"ask it at http://127\.0\.0\.1:(\d+)/ {4}\(Ctrl-C ends it\)\n", said)[1])
    with socket.create_connection((ADDRESS, port)) as idle:  # a browser leaves one open
        idle.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
        assert idle.recv(15) == b"HTTP/1.0 200 OK"
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.2", port))
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    assert (process.returncode, out, err) == (0, "\nended\n", "")


# ------------------------------------------------------------------------------------------------ the page


@pytest.fixture(scope="module")
def browser():
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on this machine: install one, or set CHROMIUM to its path")
    with chromium(program) as page:
        yield page


@pytest.fixture
def page(browser, server) -> Iterator[Page]:
    """The page, just opened. Afterwards no script may have failed, and nobody else may have been asked."""
    browser.events.clear()
    home = f"http://127.0.0.1:{server.server_port}/"
    browser.open(home)
    browser.wait_for("document.activeElement.id === 'passage'")
    yield browser
    assert browser.complaints() == []
    assert {address.removeprefix(home) for address in browser.requests()} <= {
        "", "about:blank", "answer", "window", "attention", "data:,"
    }  # fmt: skip


def ask_by_keyboard(page: Page, passage: str, question: str) -> None:
    page.type(passage)
    page.press("Tab")
    page.type(question)
    page.press("Enter")
    page.wait_for("turn > 0 && !document.getElementById('ask').disabled")


def shown(page: Page, selector: str) -> list[str]:
    return page.run(f"Array.from(document.querySelectorAll({json.dumps(selector)}), found => found.textContent)")


def test_page_a_persian_question_is_answered_by_keyboard_alone(page, server, tokenizer):
    ask_by_keyboard(page, FIRST.context, FIRST.question)
    city = FIRST.answers[0].text
    said = asked(server, "/answer", **FIELDS)
    assert shown(page, "#answer, #passage-shown, #passage-shown mark") == [city, FIRST.context, city]
    assert shown(page, "#others td:first-child") == [other["text"] for other in said["others"]]
    assert shown(page, "#others td:last-child") == [f"{other['score']:.2f}" for other in said["others"]]
    assert f"score {said['answer']['score']:.2f}; of no answer" in shown(page, "#chance")[0]
    for place in ("answer", "passage", "question", "passage-shown", "tokens"):
        assert page.run(f"getComputedStyle(document.getElementById('{place}')).direction") == "rtl"
    assert shown(page, ".token bdi") == tokenizer.encode(FIRST.question, FIRST.context).tokens
    assert "".join(shown(page, ".token.answer bdi")).replace("##", "") == city
    logits = asked(server, "/window", **FIELDS, window=0)
    assert shown(page, "#numbers td:nth-child(4)") == [f"{logit:.2f}" for logit in logits["start"]]
    assert shown(page, "#numbers td:nth-child(5)") == [f"{logit:.2f}" for logit in logits["end"]]
    heights = "Array.from(document.querySelectorAll('i.start[style]'), bar => bar.getBoundingClientRect().height)"
    tallest = max(range(len(logits["start"])), key=logits["start"].__getitem__)
    assert page.run(f"(heights => heights.indexOf(Math.max(...heights)))({heights})") == tallest


def test_page_the_map_is_read_by_arrow_keys_and_drawn(page, server):
    ask_by_keyboard(page, FIRST.context, FIRST.question)
    page.press("Tab", "Tab", "Tab")  # the button, the numbers, the layer
    assert page.run("document.activeElement.id") == "layer"
    page.press("ArrowDown", "Tab", "ArrowDown", "Tab")
    assert page.run("document.activeElement.id") == "map"
    page.wait_for("!document.getElementById('ask').disabled")
    rows = asked(server, "/attention", **FIELDS, window=0, layer=1, head=1)["rows"]
    assert page.run("rows") == rows
    page.press("ArrowDown", "ArrowRight", "ArrowRight", "ArrowRight", "ArrowLeft", "ArrowUp", "ArrowUp")
    assert shown(page, "#readout")[0].startswith("Token 0 [CLS] gives token 2 ")
    assert f" {rows[0][2] / 100:.1f} % of its attention; the most to " in shown(page, "#readout")[0]
    page.press("End")
    assert f" gives token {len(rows) - 1} [SEP] {rows[0][-1] / 100:.1f} % of" in shown(page, "#readout")[0]

    place = page.run(
        "(b => [b.x + scrollX, b.y + scrollY, edge, size])(document.getElementById('map').getBoundingClientRect())"
    )
    left, top, edge, size = place
    drawn = Image.open(io.BytesIO(page.picture())).convert("L")

    def ink(row: int, column: int) -> int:
        x, y = (round(corner + edge + (n + 0.5) * size) for corner, n in ((left, column), (top, row)))
        return 255 - drawn.getpixel((x, y))

    count = len(rows)
    pairs = sorted((rows[r][c], ink(r, c)) for r in range(count) for c in range(count))
    assert pairs[-1][0] > pairs[0][0] + 500, "too even to see"
    inks = [ink for _, ink in pairs]
    assert all(later >= sooner - 1 for sooner, later in itertools.pairwise(inks)), "the more, the darker"
    assert inks[-1] > inks[0] + 10


def test_page_english_goes_from_left_to_right(page):
    ask_by_keyboard(page, "the word تهران means a city", "which city?")
    for place in ("passage", "question", "passage-shown", "tokens"):
        assert page.run(f"getComputedStyle(document.getElementById('{place}')).direction") == "ltr"


def test_page_marks_the_answer_behind_characters_outside_the_basic_plane(page):
    ask_by_keyboard(page, "😀𐎠 " + FIRST.context, FIRST.question)
    assert shown(page, "#passage-shown mark") == shown(page, "#answer")
    assert shown(page, "#passage-shown") == ["😀𐎠 " + FIRST.context]


def test_page_shows_hostile_text_as_text(page):
    hostile = f"<img src=x onerror=alert(1)><script>alert(2)</script>\u202e</p><h1>{FIRST.context}"
    before = page.run("document.querySelectorAll('img, script, h1').length")
    ask_by_keyboard(page, hostile, f"<b>{FIRST.question}</b>")
    assert shown(page, "#passage-shown") == [hostile.replace("\u202e", "")]
    assert page.run("document.querySelectorAll('img, script, h1').length") == before


def test_page_says_where_there_is_no_answer(page):
    silent = next(example for example in examples() if not example.answers)
    ask_by_keyboard(page, silent.context, silent.question)
    assert shown(page, "#answer") == ["No answer in the passage."]
    assert shown(page, "mark, .token.answer") == []
    assert shown(page, "#passage-shown") == [silent.context]


def test_page_windows_of_a_long_passage_can_be_chosen(page, server):
    passage = "رود در شهر و کوه. " * 60 + FIRST.context
    ask_by_keyboard(page, passage, FIRST.question)
    said = asked(server, "/answer", passage=passage, question=FIRST.question)
    other = 0 if said["window"] else 1
    assert page.run("document.getElementById('window').value") == str(said["window"])
    assert page.run("document.getElementById('window').options.length") == said["windows"]
    page.run(f"window.value = {other}, at('window').value = {other}, at('window').dispatchEvent(new Event('change'))")
    page.wait_for("!document.getElementById('ask').disabled")
    tokens = asked(server, "/window", passage=passage, question=FIRST.question, window=other)["tokens"]
    assert shown(page, ".token bdi") == [token["text"] for token in tokens]
    assert page.run("rows.length") == len(tokens)


def test_page_says_what_went_wrong_and_goes_on(page, server):
    ask_by_keyboard(page, FIRST.context, " ")
    assert shown(page, "#error") == ["the question is empty: write one"]
    assert page.run("document.getElementById('result').hidden")
    page.type(FIRST.question)
    with mock.patch.object(Reader, "answer", side_effect=ConnectionError):
        page.press("Enter")
        page.wait_for("document.getElementById('error').textContent.includes('does not answer')")
    page.events.clear()  # the two replies above are complaints to the browser, rightly
    page.press("Enter")
    page.wait_for("!document.getElementById('result').hidden && !document.getElementById('ask').disabled")
    assert shown(page, "#error") == [""]
