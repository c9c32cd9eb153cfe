"""The service: answers equal to predict's, requests that share a batch, and everything refused."""

from __future__ import annotations

import io
import json
import re
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fakes import PixelEncoder
from PIL import Image
from small_runs import NAMES, FakeCaptioner, FakePhotos, random_photo, small_run

from aape.adapter.captions.settings import DecodeConfig
from aape.adapter.open_model import OpenModel, open_model
from aape.adapter.predict import predict
from aape.adapter.serve import check_access, service
from aape.adapter.serve.limits import Allowance, Limits, check_size
from aape.adapter.serve.service import PhotoQuestion, Service, open_service
from aape.pipeline.errors import UserError

pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
from starlette.testclient import TestClient

from aape.adapter.serve.app import create_app

TOKEN = "a-token-of-some-length"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.fixture
def model(home: Path) -> OpenModel:
    encoder = PixelEncoder()
    return open_model(small_run(home / "run", encoder).path, encoder=encoder)


def client(service: Service, **options: Any) -> TestClient:
    app = create_app(service, **options)
    return TestClient(app, base_url="http://localhost", raise_server_exceptions=False)


@pytest.fixture
def asked(model: OpenModel) -> Iterator[TestClient]:
    with client(Service(model)) as opened:
        yield opened


def photo_of(home: Path, seed: int = 0) -> tuple[Path, dict[str, Any]]:
    path = random_photo(home / f"{seed}.png", seed)
    return path, {"photo": ("../../etc/passwd", path.read_bytes(), "image/png")}


def test_an_open_model_says_what_predict_says(home: Path, model: OpenModel) -> None:
    paths = [random_photo(home / f"{seed}.png", seed) for seed in range(7)]
    for choice in ({}, {"classes": NAMES[1:3]}, {"also": ["blue jay"]}):
        plain = predict(model.folder.path, paths, top=4, encoder=model.encoder, **choice)
        kept = predict(model, paths, top=4, **choice)
        assert [row.labels for row in kept] == [row.labels for row in plain]
        for one, other in zip(kept, plain):
            assert one.probabilities == pytest.approx(other.probabilities, abs=2e-4)


def test_names_are_read_in_one_way_by_all(home: Path, model: OpenModel, asked: TestClient) -> None:
    path, upload = photo_of(home, 3)
    for words in (["Red-Kite", "GREEN finch"], ["0", "3"], [NAMES[0], NAMES[3]]):
        plain = predict(model.folder.path, [path], classes=words, encoder=model.encoder)[0]
        kept = predict(model, [path], classes=words)[0]
        assert (kept.labels, kept.class_ids) == (plain.labels, plain.class_ids)
        assert set(plain.class_ids) == {0, 3}
        assert model.predict([path], classes=words)[0] == kept
        answer = asked.post("/predict", files=upload, data={"classes": words}).json()["labels"]
        assert [one["label"] for one in answer] == plain.labels
        assert [one["class_id"] for one in answer] == plain.class_ids
        assert [one["trained"] for one in answer] == [i == 0 for i in plain.class_ids]
    answer = asked.post("/predict", files=upload, data={"also": "Red Kite", "top": 9}).json()
    assert len(answer["labels"]) == len(NAMES), "the trained class, not another beside it"


def test_an_open_model_sorts_and_describes_too(
    home: Path, model: OpenModel, capsys: pytest.CaptureFixture[str]
) -> None:
    path = random_photo(home / "a.png", 1)
    (row,) = predict(model, [path], also="jay", describe=True, sort_into=home / "sorted")
    assert "Nothing was described" in capsys.readouterr().err
    assert len(list((home / "sorted").rglob("a.png"))) == 1
    assert row.class_ids


def test_an_open_model_takes_pictures_and_skips_what_is_damaged(
    home: Path, model: OpenModel
) -> None:
    whole = random_photo(home / "a.jpg", size=(800, 600))
    with Image.open(whole) as picture:
        given = [whole, home / "cut.png", picture.copy(), np.asarray(picture)]
    given[1].write_bytes(cut_photo(home))
    plain = predict(model.folder.path, given[:1], encoder=model.encoder)[0]
    rows = predict(model, given)
    assert rows[0].probabilities == pytest.approx(plain.probabilities, abs=2e-4)
    assert rows[1].error
    assert not rows[1].labels
    assert rows[2].labels == rows[3].labels == rows[0].labels
    with pytest.raises(UserError, match="cannot be read"):
        predict(model, given[:2], strict=True)


def test_names_of_strangers_leave_nothing_on_the_disk(home: Path, model: OpenModel) -> None:
    before = sorted(home.rglob("*"))
    model.classes(["never seen", "nor this"])
    assert sorted(home.rglob("*")) == before


def test_predict_and_explain(home: Path, model: OpenModel, asked: TestClient) -> None:
    path, files = photo_of(home)
    (truth,) = predict(model, [path], top=4)
    said = asked.post("/predict", files=files, data={"top": "4"}).json()["labels"]
    assert [one["label"] for one in said] == truth.labels
    assert [one["p"] for one in said] == pytest.approx(truth.probabilities, abs=1e-4)
    assert {one["label"]: one["trained"] for one in said} == {
        name: i < 3 for i, name in enumerate(NAMES)
    }
    data = {"top": "4", "also": ["blue jay", "wren"]}
    found = asked.post("/explain", files=files, data=data).json()
    for one in found["labels"]:
        assert sum(one["terms"].values()) == pytest.approx(one["logit"], abs=1e-4)
    assert {"zero-shot", "shared map"} <= set(found["labels"][0]["terms"])
    chosen = asked.post("/predict", files=files, data={"classes": ["猫", "wren"]}).json()
    assert {one["label"] for one in chosen["labels"]} == {"猫", "wren"}


def test_requests_at_the_same_time_share_a_pass(home: Path, model: OpenModel) -> None:
    sizes: list[int] = []
    encode = model.encoder.encode_images

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        sizes.append(len(pixels))
        return encode(pixels)

    model.encoder.encode_images = counted
    photos = [photo_of(home, seed) for seed in range(24)]
    alone = [predict(model, [path], top=1)[0].labels[0] for path, _ in photos]
    sizes.clear()
    with client(Service(model), limits=Limits(wait=0.2, batch=8)) as opened:

        def ask(files: dict[str, Any]) -> str:
            return opened.post("/predict", files=files).json()["labels"][0]["label"]

        with ThreadPoolExecutor(24) as pool:
            together = list(pool.map(ask, [files for _, files in photos]))
        metrics = opened.get("/metrics").text
    assert together == alone, "each got the answer to its own photo"
    assert sum(sizes) == 24
    assert max(sizes) > 1
    assert max(sizes) <= 8
    assert 'aape_requests_total{route="/predict",status="200"} 24.0' in metrics
    assert f"aape_batch_size_count {len(sizes)}.0" in metrics


def bomb() -> bytes:
    stream = io.BytesIO()
    Image.new("1", (9000, 9000)).save(stream, "PNG")
    return stream.getvalue()


def cut_photo(home: Path) -> bytes:
    return random_photo(home / "cut.png").read_bytes()[:400]


def test_photos_that_are_refused_are_named_without_a_path(home: Path, asked: TestClient) -> None:
    for content, said in (
        (b"no picture at all", "is no picture"),
        (bomb(), "81.0 megapixels"),
        (cut_photo(home), "The photo"),
        (b"", "The photo"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "is no picture"),
    ):
        reply = asked.post("/predict", files={"photo": ("x.png", content)})
        assert reply.status_code == 400, reply.text
        assert said in reply.json()["error"]
        for secret in ("/tmp", str(home), "aape-", "photo'", "0x"):
            assert secret not in reply.text


@pytest.mark.parametrize(
    "data",
    [{"top": "0"}, {"top": "x"}, {"also": [""]}, {"also": ["  "]}, {"also": ["a" * 201]},
     {"top": "101"}],
)  # fmt: skip
def test_wrong_fields_are_one_sentence(home: Path, asked: TestClient, data: Any) -> None:
    reply = asked.post("/predict", files=photo_of(home)[1], data=data)
    assert reply.status_code == 422
    assert set(reply.json()) == {"error", "hint"}


def test_what_is_not_offered_says_so(home: Path, asked: TestClient) -> None:
    assert asked.get("/health").json()["offers"] == ["predict", "explain"]
    files = photo_of(home)[1]
    assert asked.post("/caption", files=files).status_code == 404
    assert asked.post("/ask", files=files, data={"question": "why?"}).status_code == 404
    assert asked.post("/search", data={"text": "a bird"}).status_code == 404
    assert asked.get("/../../etc/passwd").status_code == 404
    assert asked.get("/docs").status_code == 404


def test_a_token_guards_all_but_page_and_health(home: Path, model: OpenModel) -> None:
    files = photo_of(home)[1]
    with client(Service(model), token=TOKEN) as opened:
        assert opened.get("/").status_code == 200
        assert opened.get("/health").json()["token"] is True
        for path in ("/metrics", "/openapi.json", "/nowhere"):
            assert opened.get(path).status_code == 401
        for given in ("", "Bearer", f"Bearer {TOKEN}x", f"Basic {TOKEN}", "Bearer \xff"):
            headers = {"authorization": given.encode("latin-1")}
            assert opened.post("/predict", files=files, headers=headers).status_code == 401
        headers = {"authorization": f"Bearer {TOKEN}"}
        assert opened.post("/predict", files=files, headers=headers).status_code == 200


def test_any_error_of_a_reader_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """AVIF's reader raises RuntimeError at a damaged file."""

    def fails(path: Path) -> None:
        raise RuntimeError(f"Failed to decode {path}: truncated data")

    monkeypatch.setattr("aape.adapter.serve.limits.open_raster", fails)
    with pytest.raises(UserError, match=r"cannot be read: Failed to decode the photo: truncated"):
        check_size(Path("/somewhere/x.avif"), Limits())


def test_other_hosts_and_other_sites_are_refused(asked: TestClient) -> None:
    assert asked.get("/health", headers={"host": "evil.example:8000"}).status_code == 403
    assert asked.get("/health", headers={"host": "127.0.0.1:8000"}).status_code == 200
    assert asked.get("/health", headers={"origin": "http://evil.example"}).status_code == 403
    assert asked.get("/health", headers={"origin": "http://localhost:8000"}).status_code == 200
    assert asked.get("/health", headers={"origin": "null"}).status_code == 403
    assert asked.get("/health", headers={"origin": "http://["}).status_code == 403


def test_size_rate_and_time_have_limits(home: Path, model: OpenModel) -> None:
    files = photo_of(home)[1]
    with client(Service(model), limits=Limits(megabytes=0.001)) as opened:
        large = {"photo": ("x.png", b"0" * 2000)}
        assert opened.post("/predict", files=large).status_code == 413
        # no length is declared where a body comes in pieces
        pieces = (b"0" * 300 for _ in range(9))
        assert opened.post("/predict", content=pieces).status_code == 413
    with client(Service(model), limits=Limits(per_minute=3)) as opened:
        codes = [opened.get("/health").status_code for _ in range(5)]
        assert codes == [200, 200, 200, 429, 429]
        assert int(opened.get("/health").headers["retry-after"]) >= 1
    model.encoder.seconds = 0.6
    with client(Service(model), limits=Limits(seconds=0.2)) as opened:
        reply = opened.post("/predict", files=files)
        assert reply.status_code == 503
        assert "0.2 seconds" in reply.json()["error"]


def test_a_full_queue_is_refused_at_once(home: Path, model: OpenModel) -> None:
    model.encoder.seconds = 0.3
    files = photo_of(home)[1]
    limits = Limits(batch=1, waiting=1, wait=0)
    with client(Service(model), limits=limits) as opened, ThreadPoolExecutor(8) as pool:
        replies = pool.map(lambda _: opened.post("/predict", files=files), range(8))
        codes = [reply.status_code for reply in replies]
    assert set(codes) == {200, 503}


def test_an_allowance_refills() -> None:
    allowance = Allowance(60)
    assert [allowance.wait("a", now=0.0) for _ in range(60)] == [0.0] * 60
    assert allowance.wait("a", now=0.0) == pytest.approx(1.0)
    assert allowance.wait("b", now=0.0) == 0.0
    assert allowance.wait("a", now=1.0) == 0.0
    assert allowance.wait("a", now=1.0) > 0


@pytest.mark.parametrize(
    ("host", "token", "said"),
    [("0.0.0.0", "", "everybody"), ("127.0.0.1", "short", "guess"), ("::", "", "everybody"),
     ("127.0.0.1", "ü" * 20, "cannot be sent")],
)  # fmt: skip
def test_a_server_for_others_needs_a_real_token(host: str, token: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        check_access(host, token)


def test_a_bug_shows_no_inside(home: Path, model: OpenModel) -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError(f"secret at {home}")

    model.encoder.encode_images = broken
    with client(Service(model)) as opened:
        reply = opened.post("/predict", files=photo_of(home)[1])
        assert reply.status_code == 500
        assert "secret" not in reply.text
        assert opened.get("/health").status_code == 200, "the batcher lives on"


def test_search_and_caption_are_wired_and_tell_no_folder(home: Path, model: OpenModel) -> None:
    root = home / "photos"
    service = Service(model, photos=FakePhotos(root), photo_root=root, captioner=FakeCaptioner())
    files = photo_of(home)[1]
    with client(service) as opened:
        assert opened.get("/health").json()["offers"] == ["predict", "explain", "search", "caption"]
        hits = opened.post("/search", data={"text": "dog"}).json()["hits"]
        assert hits == [{"name": "deep/dog.png", "cosine": 0.5}]
        like = {"like": files["photo"]}
        assert opened.post("/search", files=like).json()["hits"][0]["name"] == "twin.png"
        assert opened.post("/search", files=like, data={"text": "dog"}).status_code == 400
        assert opened.post("/caption", files=files).json() == {"text": "24 wide", "ended": True}
        wide = random_photo(home / "wide.png", size=(60, 60)).read_bytes()
        reply = opened.post("/caption", files={"photo": ("x", wide)})
        assert reply.status_code == 400
        assert "aape-" not in reply.text


def test_equal_questions_are_one_batch_and_each_has_its_own_answer(home: Path) -> None:
    class Answerer:
        def __init__(self) -> None:
            self.asked: list[tuple[int, str, int]] = []

        def texts(self, paths: list[Path], prompt: str, decode: DecodeConfig) -> Iterator[Any]:
            self.asked.append((len(paths), prompt, decode.max_tokens))
            for path, said in zip(paths, FakeCaptioner().texts(paths)):
                yield replace(said, text=f"{prompt} {path.stem}")

    places = [random_photo(home / f"{name}.png") for name in "abc"]
    wide = random_photo(home / "wide.png", size=(60, 60))
    asked = list(zip([*places, wide], ["what?", "where?", "what?", "where?"]))
    answerer = Answerer()
    answers = Service(answerer=answerer).ask(asked)
    assert answerer.asked == [(2, " Q: what? A:", 8), (2, " Q: where? A:", 8)]
    texts = [answer.text for answer in answers[:3]]  # type: ignore[union-attr]
    assert texts == [" Q: what? A: a", " Q: where? A: b", " Q: what? A: c"]
    assert isinstance(answers[3], UserError)
    assert str(home) not in str(answers[3])


def test_a_question_that_cannot_be_answered_spoils_no_other(home: Path, model: OpenModel) -> None:
    pixels = model.encoder.transform(Image.open(random_photo(home / "a.png")))
    good = PhotoQuestion(pixels, 1, classes=(NAMES[1],))
    bad = PhotoQuestion(pixels, 1, classes=("",))
    first, wrong, last = Service(model).classify([good, bad, good])
    assert isinstance(wrong, UserError)
    assert first == last
    assert first.labels[0].label == NAMES[1]  # type: ignore[union-attr]


def test_a_run_with_captions_of_its_own_needs_no_other(
    home: Path, model: OpenModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[Path] = []
    monkeypatch.setattr(service, "_open_captions", lambda _, run, *rest: opened.append(Path(run)))
    run = model.folder.path
    open_service(run, encoder=model.encoder)
    assert opened == []
    (run / "vqa").mkdir()
    (run / "vqa" / "chosen.json").write_text("{}")
    open_service(run, encoder=model.encoder)
    open_service(run, captions=home / "other", encoder=model.encoder)
    assert opened == [run, home / "other"]


def test_the_page_asks_nobody_else(asked: TestClient) -> None:
    reply = asked.get("/")
    policy = reply.headers["content-security-policy"]
    nonce = re.search(r"script-src 'nonce-([^']+)'", policy)
    assert nonce
    assert f'<script nonce="{nonce[1]}">' in reply.text
    assert "default-src 'none'" in policy
    assert not re.search(r"https?://|innerHTML|insertAdjacentHTML|document\.write", reply.text)
    assert asked.get("/").headers["content-security-policy"] != policy


def test_openapi_names_every_verb_and_every_problem(asked: TestClient) -> None:
    spec = asked.get("/openapi.json").json()
    assert set(spec["paths"]) == {
        "/predict", "/explain", "/search", "/caption", "/ask", "/health", "/metrics",
    }  # fmt: skip
    for verb in ("predict", "explain", "search", "caption", "ask"):
        responses = spec["paths"][f"/{verb}"]["post"]["responses"]
        assert {"200", "400", "401", "413", "422", "429", "503"} <= set(responses)
    assert "HTTPValidationError" not in json.dumps(spec)


def test_a_real_server_on_loopback(home: Path, model: OpenModel) -> None:
    import urllib.request

    import httpx
    import uvicorn

    from aape.adapter.serve import _listen

    listening = _listen("127.0.0.1", 0)
    port = listening.getsockname()[1]
    server = uvicorn.Server(uvicorn.Config(create_app(Service(model)), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        base = f"http://127.0.0.1:{port}"
        path, files = photo_of(home)
        with httpx.Client(base_url=base, trust_env=False, timeout=30) as http:
            for _ in range(100):
                try:
                    assert http.get("/health").status_code == 200
                    break
                except httpx.ConnectError:
                    threading.Event().wait(0.05)
            said = http.post("/predict", files=files).json()["labels"][0]["label"]
        assert said == predict(model, [path], top=1)[0].labels[0]
        with pytest.raises(UserError, match="Cannot listen"):
            _listen("127.0.0.1", port)
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        assert b"Ask about a photo" in opener.open(base + "/", timeout=30).read()
    finally:
        server.should_exit = True
        thread.join(20)
    assert not thread.is_alive()
