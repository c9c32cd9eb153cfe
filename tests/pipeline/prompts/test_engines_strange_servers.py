"""Servers that refuse settings, say odd things, send too much or too slowly, or point elsewhere."""

from __future__ import annotations

import gzip
import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from aape.pipeline.config import GenerationConfig
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.answers import AnswerLog
from aape.pipeline.prompts.engines.openai import ServerEngine
from aape.pipeline.prompts.requests import ModelIdentity, Request
from aape.pipeline.store import write_lines

pytest.importorskip("openai")
Script = Callable[["Handler", dict], None]


class Handler(BaseHTTPRequestHandler):
    server: Scripted  # pyright: ignore

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        self.server.bodies.append(body)
        try:
            self.server.script(self, body)
        except (BrokenPipeError, ConnectionResetError):
            return

    def reply(self, value: Any, status: int = 200, **headers: str) -> None:
        data = value if isinstance(value, bytes) else json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name, text in headers.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        return


class Scripted(ThreadingHTTPServer):
    daemon_threads = True
    script: Script
    bodies: list[dict]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@pytest.fixture
def server() -> Iterator[Scripted]:
    running = Scripted(("127.0.0.1", 0), Handler)
    running.bodies = []
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def chat(content: Any = "An owl is grey.", reason: Any = "stop", usage: Any = None, **more: Any):
    message = {"role": "assistant", "content": content, **more}
    usage = {"completion_tokens": 7} if usage is None else usage
    choice = {"index": 0, "message": message, "finish_reason": reason}
    return {"id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice], "usage": usage}  # fmt: skip


def ask(server: Scripted, script: Script, count: int = 1, **options: Any) -> list:
    server.script = script
    settings = {"base_url": server.url, "timeout": 2.0, "retries": 1, **options}
    config = GenerationConfig.model_validate({"model": "m", "server": settings})
    sampling = {"temperature": 0.9, "top_p": 0.8, "max_tokens": 20, "stop": ["!"]}
    asked = [
        Request(f"k{i}", "toy", 0, "owl", "q", "", f"owl {i}", i, i, sampling) for i in range(count)
    ]
    with ServerEngine(config, ModelIdentity("m", "", "m"), sleep=lambda s: None) as engine:
        return [answer for group in engine.generate(asked) for answer in group]


def refusing(*settings: str, words: str = "Unsupported parameter: '{}' is not supported") -> Script:
    def script(handler: Handler, body: dict) -> None:
        for setting in settings:
            if setting in body:
                error = {"message": words.format(setting), "param": setting}
                return handler.reply({"error": error}, 400)
        return handler.reply(chat())

    return script


def test_max_completion_tokens_where_max_tokens_is_refused(server: Scripted) -> None:
    answers = ask(server, refusing("max_tokens"), count=4, concurrency=1)
    assert [answer.text for answer in answers] == ["An owl is grey."] * 4
    assert [body.get("max_completion_tokens") for body in server.bodies] == [None] + [20] * 4
    assert "max_tokens" not in server.bodies[-1]


def test_reasoning_models_take_no_temperature(
    server: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("aape.pipeline.prompts.engines.openai.step", said.append)
    words = "Unsupported value: '{}' does not support 0.9 with this model."
    answers = ask(server, refusing("max_tokens", "temperature", "top_p", words=words), count=3)
    assert len(answers) == 3
    last = server.bodies[-1]
    assert last["max_completion_tokens"] == 20
    assert not {"max_tokens", "temperature", "top_p"} & set(last)
    assert sum("refuses temperature" in line for line in said) == 1


def test_settings_are_told_by_words_alone_too(server: Scripted) -> None:
    def script(handler: Handler, body: dict) -> None:
        if "seed" in body or "stop" in body:
            name = "seed" if "seed" in body else "stop"
            return handler.reply({"detail": f"Extra inputs are not permitted: {name}"}, 422)
        return handler.reply(chat("An owl is grey! It hoots."))

    [answer] = ask(server, script)
    assert answer.text == "An owl is grey"  # cut at the stop text here instead


def test_a_value_that_is_too_large_is_said(server: Scripted) -> None:
    words = "{} is too large: 20. This model allows at most 10."
    with pytest.raises(UserError, match="too large"):
        ask(server, refusing("max_tokens", words=words))
    assert len(server.bodies) == 1


def test_nothing_is_left_out_for_ever(server: Scripted) -> None:
    def script(handler: Handler, body: dict) -> None:
        handler.reply({"error": {"message": "Unsupported: max_tokens temperature seed"}}, 400)

    with pytest.raises(UserError, match="refused a request"):
        ask(server, script)
    assert len(server.bodies) <= 6


@pytest.mark.parametrize(
    ("reply", "text", "reason"),
    [
        (chat(None, "length"), "", "length"),
        (chat(None, "content_filter"), "", "length"),
        (chat(None, "stop", reasoning_content="We need to"), "", "length"),
        (chat(None, "stop", refusal="I'm sorry, I can't."), "I'm sorry, I can't.", "stop"),
        (chat([{"type": "text", "text": "An owl."}]), "An owl.", "stop"),
        (chat("", "stop"), "", "stop"),
    ],
)
def test_empty_content_is_a_fragment(server: Scripted, reply: dict, text: str, reason: str) -> None:
    [answer] = ask(server, lambda handler, body: handler.reply(reply))
    assert (answer.text, answer.finish_reason) == (text, reason)
    assert len(server.bodies) == 1


_ODD_COUNTS = ("7", [1], -1, 10**400, True, 1.5)


@pytest.mark.parametrize("usage", [[], "many", 7, *({"completion_tokens": c} for c in _ODD_COUNTS)])
@pytest.mark.parametrize("reason", [7, ["stop"], {"a": 1}, "x" * 10_000, None])
def test_odd_types_are_neither_tracebacks_nor_kept(
    server: Scripted, usage: Any, reason: Any, tmp_path: Path
) -> None:
    answers = ask(server, lambda handler, body: handler.reply(chat("An owl.", reason, usage)))
    log = AnswerLog(tmp_path)
    log.append(answers)
    answer = AnswerLog(tmp_path)[answers[0].key]
    assert (answer.text, answer.n_tokens, answer.finish_reason) == ("An owl.", 0, "")


def test_odd_answers_of_earlier_versions_are_asked_for_again(tmp_path: Path) -> None:
    good = {"key": "a", "text": "t", "finish_reason": "stop", "n_tokens": 3, "engine": "openai",
            "engine_version": "1", "created_at": ""}  # fmt: skip
    rows = [good, {**good, "key": "b", "n_tokens": [3]}, {**good, "key": "c", "finish_reason": 7},
            {**good, "key": "d", "more": 1}, ["e"]]  # fmt: skip
    write_lines(tmp_path, "000000", rows)  # type: ignore[arg-type]
    log = AnswerLog(tmp_path)
    assert len(log) == 1
    assert "a" in log


@pytest.mark.parametrize("body", [b"[" * 100_000, b'{"choices": [[]]}', b'{"choices": {"a": 1}}',
                                  b'"words"', b"null", b"7"])  # fmt: skip
def test_any_other_body_is_one_sentence(server: Scripted, body: bytes) -> None:
    with pytest.raises(UserError, match="2 times in a row"):
        ask(server, lambda handler, asked: handler.reply(body))


def test_a_body_has_a_limit_packed_or_not(server: Scripted) -> None:
    bomb = gzip.compress(json.dumps(chat("x" * (200 << 20))).encode(), 9)
    assert len(bomb) < 1 << 20
    with pytest.raises(UserError, match="more than 8 MB"):
        ask(server, lambda handler, body: handler.reply(bomb, content_encoding="gzip"), timeout=60)
    with pytest.raises(UserError, match="more than 8 MB"):
        ask(server, lambda handler, body: handler.reply(b" " * (9 << 20)), timeout=60)
    with pytest.raises(UserError, match="not asked for"):
        ask(server, lambda handler, body: handler.reply(b"x", content_encoding="br"))
    small = gzip.compress(json.dumps(chat()).encode())
    for packed in (small, small + b""):
        [answer] = ask(server, lambda h, body, p=packed: h.reply(p, content_encoding="gzip"))
        assert answer.text == "An owl is grey."


@pytest.mark.parametrize("where", ["head", "body"])
def test_a_drip_is_left_when_time_is_over(server: Scripted, where: str) -> None:
    def script(handler: Handler, body: dict) -> None:
        if where == "body":
            handler.send_response(200)
            handler.send_header("content-length", "100000")
            handler.end_headers()
        for _ in range(200):
            handler.wfile.write(b" " if where == "body" else b"H")
            handler.wfile.flush()
            time.sleep(0.1)

    start = time.monotonic()
    with pytest.raises(UserError, match=r"no answer within 0\.5 seconds|no whole answer"):
        ask(server, script, timeout=0.5, retries=0)
    assert time.monotonic() - start < 15  # it would have dripped for 20


def test_a_redirect_carries_no_prompt(server: Scripted) -> None:
    other = Scripted(("127.0.0.1", 0), Handler)
    other.bodies, other.script = [], lambda handler, body: handler.reply(chat("stolen"))
    threading.Thread(target=other.serve_forever, args=(0.01,), daemon=True).start()
    place = f"{other.url}/chat/completions"
    for status in (301, 302, 307, 308):
        with pytest.raises(UserError, match=r"sends requests on to .*--base-url"):
            ask(server, lambda handler, body, s=status: handler.reply({}, s, location=place))
    assert not other.bodies
    other.shutdown()
    other.server_close()


def test_words_of_a_server_move_no_cursor(server: Scripted) -> None:
    words = {"error": {"message": "\x1b[2J\x1b]0;owned\x07 no\u202e"}}
    with pytest.raises(UserError) as caught:
        ask(server, lambda handler, body: handler.reply(words, 400))
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("header", ["²", "inf", "-5", "nan", "soon", "1e400"])
def test_odd_pauses_are_no_tracebacks(server: Scripted, header: str) -> None:
    replies = iter([503, 200])

    def script(handler: Handler, body: dict) -> None:
        handler.reply(chat(), next(replies), retry_after=header.encode().decode("latin-1"))

    assert len(ask(server, script)) == 1


@pytest.mark.parametrize(
    ("header", "told"),
    [("1e8", "27,778 hours"), ("3600", "60 minutes"), ("Wed, 21 Oct 2999 07:28:00 GMT", "hours")],
)
def test_a_server_that_is_closed_for_long_is_asked_once(
    server: Scripted, header: str, told: str
) -> None:
    with pytest.raises(UserError, match=rf"left alone for .*{told}.*429"):
        ask(server, lambda handler, body: handler.reply({}, 429, retry_after=header))
    assert len(server.bodies) == 1


_INTERRUPTED = """
import sys
from aape.pipeline.config import GenerationConfig
from aape.pipeline.prompts.engines.openai import ServerEngine
from aape.pipeline.prompts.requests import ModelIdentity, Request
settings = {"base_url": sys.argv[1], "timeout": 300, "retries": 3}
config = GenerationConfig.model_validate({"model": "m", "server": settings})
sampling = {"temperature": 1, "top_p": 1, "max_tokens": 20, "stop": []}
asked = [Request(f"k{i}", "toy", 0, "owl", "q", "", "owl", i, i, sampling) for i in range(40)]
print("asking", flush=True)
for group in ServerEngine(config, ModelIdentity("m", "", "m")).generate(asked):
    pass
"""


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_an_interrupt_does_not_wait_for_the_server(server: Scripted) -> None:
    server.script = lambda handler, body: time.sleep(200)
    child = subprocess.Popen(
        [sys.executable, "-c", _INTERRUPTED, server.url],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert child.stdout
    assert child.stdout.readline() == "asking\n"
    end = time.monotonic() + 60
    while len(server.bodies) < 16 and time.monotonic() < end:
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)  # not the 300 seconds of the time-out
    assert "KeyboardInterrupt" in errors
