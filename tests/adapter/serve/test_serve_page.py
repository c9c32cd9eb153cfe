"""The page in a real browser: a photo goes in, the answer with its terms comes out, as text.

The page's own policy forbids ``eval``, so tests wait for what is seen, not for expressions.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fakes import PixelEncoder
from small_runs import FakeCaptioner, FakePhotos, random_photo, small_run

from aape.adapter.open_model import OpenModel, open_model
from aape.adapter.serve import _listen
from aape.adapter.serve.limits import Limits
from aape.adapter.serve.service import Service

playwright = pytest.importorskip("playwright.sync_api")
uvicorn = pytest.importorskip("uvicorn")
pytest.importorskip("fastapi")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]


@pytest.fixture
def served(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, OpenModel]]:
    from aape.adapter.serve.app import create_app

    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    encoder = PixelEncoder()
    model = open_model(small_run(tmp_path / "run", encoder).path, encoder=encoder)
    service = Service(
        model, photos=FakePhotos(tmp_path), photo_root=tmp_path, captioner=FakeCaptioner()
    )
    app = create_app(service, token="a-token-of-some-length", limits=Limits(megapixels=0.01))
    listening = _listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}/", model
    server.should_exit = True
    thread.join(20)


@pytest.fixture
def page(served: tuple[str, OpenModel]) -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        options = ["--no-proxy-server"] + (["--no-sandbox"] if os.geteuid() == 0 else [])
        browser = running.chromium.launch(executable_path=CHROMIUM, args=options)
        opened = browser.new_page(viewport={"width": 390, "height": 844})
        opened.set_default_timeout(60_000)
        asked: list[str] = []
        opened.on("request", lambda request: asked.append(request.url))
        errors: list[str] = []
        opened.on("pageerror", lambda error: errors.append(str(error)))
        opened.on("console", lambda said: errors.append(said.text) if said.type == "error" else 0)
        opened.goto(served[0])
        yield opened
        assert all(url.startswith((served[0], "blob:")) for url in asked), asked
        assert not [text for text in errors if "status of 4" not in text], errors
        browser.close()


def test_a_photo_is_explained(page: Any, served: tuple[str, OpenModel], tmp_path: Path) -> None:
    model = served[1]
    photo = random_photo(tmp_path / "a.png")
    page.set_input_files("#photo", str(photo))
    assert page.locator("#preview").is_visible()
    page.click("#explain")
    page.locator("#problem", has_text="token").wait_for()
    page.fill("#token", "a-token-of-some-length")
    strange = "<img src=x onerror=alert(1)>"
    page.fill("#classes", f"red kite\n{strange}\n\n")
    page.focus("#explain")
    page.keyboard.press("Enter")  # by keyboard alone
    page.wait_for_selector("#answer table")
    (truth,) = model.predict([photo], top=5, classes=["red kite", strange])
    assert page.locator("#answer h2").first.inner_text().startswith(truth.labels[0])
    assert strange in page.locator("#answer").inner_text()
    assert page.locator("#answer img").count() == 0
    heads = page.locator("#answer thead th").all_inner_texts()
    assert heads[0] == "Class"
    assert {"zero-shot", "shared map", "Logit"} <= set(heads)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width <= 390, "nothing is cut off on a phone"
    column = page.locator("#answer tbody th").first.bounding_box()
    assert column["width"] >= 140, "a class can be read, however many terms stand beside it"
    if place := os.environ.get("AAPE_SCREENSHOTS"):
        page.screenshot(path=f"{place}/serve-phone.png", full_page=True)
        page.set_viewport_size({"width": 1280, "height": 800})
        page.screenshot(path=f"{place}/serve-desktop.png", full_page=True)


def test_the_other_verbs_and_problems(page: Any, tmp_path: Path) -> None:
    page.fill("#token", "a-token-of-some-length")
    page.click("#caption")
    assert page.locator("#problem").inner_text() == "Choose a photo first."
    page.set_input_files("#photo", str(random_photo(tmp_path / "a.png")))
    page.click("#caption")
    page.wait_for_selector("#answer h2")
    assert page.locator("#answer h2").inner_text() == "24 wide"
    assert page.locator("#ask").is_hidden(), "what is not offered is not shown"
    page.fill("#sought", "two <b>dogs</b>")
    page.click("#search")
    page.wait_for_selector("#answer td")
    assert "deep/two <b>dogs</b>.png" in page.locator("#answer").inner_text()
    page.set_input_files("#photo", str(random_photo(tmp_path / "b.png", size=(200, 200))))
    page.click("#explain")
    page.locator("#problem", has_text="megapixels").wait_for()


def test_everything_has_a_name_for_screen_readers(page: Any) -> None:
    nameless = page.evaluate(
        """() => [...document.querySelectorAll('input, textarea, button')].filter(
            (one) => !(one.labels && one.labels.length) && !one.textContent.trim()
                     && !one.getAttribute('aria-label')).map((one) => one.id)"""
    )
    assert nameless == []
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("main h1").count() == 1
    assert page.locator("[role=alert]").count() == 1
