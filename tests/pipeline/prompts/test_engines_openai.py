"""The engine for servers, against one that misbehaves in every way a server does."""

from __future__ import annotations

import json
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from aape.pipeline.config import GenerationConfig
from aape.pipeline.errors import UserError
from aape.pipeline.prompts.engines.openai import ServerEngine
from aape.pipeline.prompts.requests import ModelIdentity, Request

pytest.importorskip("openai")
_FAULTS = ("500", "429", "cut", "malformed", "html", "empty", "slow", "null", "closed", "503")


class FakeServer(ThreadingHTTPServer):
    """Answers each request after the faults named in its prompt, one a try."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.tries: dict[str, int] = defaultdict(int)
        self.bodies: list[dict] = []
        self.busy = self.most_busy = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class _Handler(BaseHTTPRequestHandler):
    server: FakeServer  # pyright: ignore

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        prompt = body["messages"][0]["content"]
        with self.server.lock:
            self.server.bodies.append(body)
            attempt = self.server.tries[prompt]
            self.server.tries[prompt] += 1
            self.server.busy += 1
            self.server.most_busy = max(self.server.most_busy, self.server.busy)
        try:
            faults = prompt.split("|")[1].split(",") if "|" in prompt else []
            self.answer(faults[attempt] if attempt < len(faults) else "", prompt)
        finally:
            with self.server.lock:
                self.server.busy -= 1

    def answer(self, fault: str, prompt: str) -> None:
        message = {"role": "assistant", "content": f"about {prompt}"}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        reply = {
            "id": "1", "object": "chat.completion", "created": 1, "model": "m",
            "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 7, "total_tokens": 8},
        }  # fmt: skip
        text = json.dumps(reply)
        if fault.isdigit():
            self.send(int(fault), '{"error": {"message": "no"}}')
        elif fault == "malformed":
            self.send(200, text[: len(text) // 2])
        elif fault == "html":
            self.send(200, "<html>proxy</html>", "text/html")
        elif fault == "empty":
            self.send(200, json.dumps({**reply, "choices": []}))
        elif fault == "null":
            message["content"] = None  # type: ignore[assignment]
            self.send(200, json.dumps(reply))
        elif fault == "cut":
            self.send(200, text, length=len(text) + 100)
        elif fault == "closed":
            self.close_connection = True
        elif fault == "slow":
            time.sleep(1.5)
            self.send(200, text)
        else:
            time.sleep(0.02)
            self.send(200, text)

    def send(self, status: int, text: str, kind: str = "application/json", length: int = 0) -> None:
        self.send_response(status)
        self.send_header("content-type", kind)
        self.send_header("content-length", str(length or len(text.encode())))
        if status == 429:
            self.send_header("retry-after", "0.05")
        self.end_headers()
        try:
            self.wfile.write(text.encode())
        except BrokenPipeError:
            return

    def log_message(self, format: str, *args: object) -> None:
        return


@pytest.fixture
def server() -> Iterator[FakeServer]:
    running = FakeServer()
    threading.Thread(target=running.serve_forever, args=(0.01,), daemon=True).start()
    yield running
    running.shutdown()
    running.server_close()


def requests(*prompts: str) -> list[Request]:
    sampling = {"temperature": 0.9, "top_p": 0.8, "max_tokens": 20, "stop": ["!"]}
    return [
        Request(f"k{i}", "toy", 0, "owl", "q", "", prompt, i, 1000 + i, sampling)
        for i, prompt in enumerate(prompts)
    ]


def engine(server: FakeServer, **server_options) -> ServerEngine:
    options = {"base_url": server.url, "timeout": 0.8, "retries": 4, **server_options}
    config = GenerationConfig.model_validate({"model": "m", "server": options})
    return ServerEngine(config, ModelIdentity("m", "", "m"), sleep=lambda seconds: None)


def texts(opened: ServerEngine, asked: list[Request]) -> dict[str, str]:
    with opened:
        groups = list(opened.generate(asked))
    return {answer.key: answer.text for group in groups for answer in group}


@pytest.mark.parametrize("fault", _FAULTS)
def test_passing_faults_are_tried_again(server: FakeServer, fault: str) -> None:
    [request] = requests(f"owl|{fault},{fault}")
    assert texts(engine(server), [request]) == {"k0": f"about owl|{fault},{fault}"}
    assert server.tries[request.prompt] == 3


def test_all_faults_at_once(server: FakeServer) -> None:
    prompts = [f"owl {i}|{_FAULTS[i % len(_FAULTS)]}" for i in range(40)]
    asked = requests(*prompts)
    found = texts(engine(server, concurrency=8), asked)
    assert found == {request.key: f"about {request.prompt}" for request in asked}
    assert all(count == 2 for count in server.tries.values())
    assert 2 <= server.most_busy <= 8 + 4  # those that timed out are still busy on the server


def test_what_is_sent(server: FakeServer) -> None:
    texts(engine(server), requests("owl"))
    [body] = server.bodies
    assert body["model"] == "m"
    assert body["seed"] == 1000
    assert (body["temperature"], body["top_p"], body["max_tokens"]) == (0.9, 0.8, 20)
    assert body["stop"] == ["!"]
    assert body["chat_template_kwargs"] == {"enable_thinking": False}
    assert "n" not in body
    server.bodies.clear()
    [request] = requests("cat")
    request.sampling["structured_output"] = True
    texts(engine(server, send_seed=False), [request])
    assert "seed" not in server.bodies[0]
    assert server.bodies[0]["response_format"]["type"] == "json_schema"


def test_what_is_finished_is_handed_over_before_the_error(server: FakeServer) -> None:
    asked = requests("good 1", "good 2", "owl|" + ",".join(["500"] * 9), "good 3")
    opened = engine(server, concurrency=4)
    seen: set[str] = set()
    with pytest.raises(UserError, match="5 times in a row"):
        for group in opened.generate(asked):
            seen |= {answer.key for answer in group}
    assert {"k0", "k1"} <= seen
    assert "k2" not in seen
    # the engine can be asked again
    assert texts(opened, requests("good 1")) == {"k0": "about good 1"}


@pytest.mark.parametrize(
    ("status", "words"), [("401", "KEY"), ("404", "model"), ("400", "sampling")]
)
def test_lasting_faults_are_said_at_once(server: FakeServer, status: str, words: str) -> None:
    with pytest.raises(UserError, match=words):
        texts(engine(server), requests(f"owl|{status},{status}"))
    assert server.tries[f"owl|{status},{status}"] == 1


def test_nobody_listens() -> None:
    config = GenerationConfig.model_validate(
        {"model": "m", "server": {"base_url": "http://127.0.0.1:9/v1", "retries": 1}}
    )
    with pytest.raises(UserError, match="connection failed"):
        texts(
            ServerEngine(config, ModelIdentity("m", "", "m"), sleep=lambda seconds: None),
            requests("owl"),
        )


def test_an_address_without_a_protocol_is_said_at_once() -> None:
    config = GenerationConfig.model_validate(
        {"model": "m", "server": {"base_url": "localhost:8000/v1"}}
    )
    with pytest.raises(UserError, match="http://HOST:PORT/v1"):
        ServerEngine(config, ModelIdentity("m", "", "m"))


def test_waiting_for_a_server_is_said_once(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    said: list[str] = []
    monkeypatch.setattr("aape.pipeline.prompts.engines.openai.step", said.append)
    texts(engine(server), requests("owl 1|500,503", "owl 2|500"))
    assert len(said) == 1
    assert "status 500; trying again" in said[0]


def test_a_key_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    with pytest.raises(UserError, match="OPENAI_API_KEY"):
        ServerEngine(GenerationConfig(model="m"), ModelIdentity("m", "", "m"))
