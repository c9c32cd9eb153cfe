"""The service against its own OpenAPI: whatever schemathesis thinks of, no crash, no surprise."""

from __future__ import annotations

from pathlib import Path

import pytest
from fakes import PixelEncoder
from small_runs import FakeCaptioner, FakePhotos, random_photo, small_run

from aape.adapter.open_model import open_model
from aape.adapter.serve.limits import Limits
from aape.adapter.serve.service import Service

schemathesis = pytest.importorskip("schemathesis")
pytest.importorskip("fastapi")
pytest.importorskip("python_multipart")
from hypothesis import HealthCheck, given, settings  # noqa: E402

from aape.adapter.serve.app import create_app  # noqa: E402

# a schema cannot say that bytes must be a photo
_ALL_ACCEPTED = schemathesis.checks.positive_data_acceptance
_OPERATIONS = ("/predict", "/explain", "/search", "/caption", "/ask", "/health", "/metrics")


@pytest.mark.slow
@pytest.mark.parametrize("path", _OPERATIONS)
def test_nothing_undocumented_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    monkeypatch.setenv("AAPE_HOME", str(tmp_path / "home"))
    encoder = PixelEncoder()
    model = open_model(small_run(tmp_path / "run", encoder).path, encoder=encoder)
    service = Service(
        model, photos=FakePhotos(tmp_path), photo_root=tmp_path, captioner=FakeCaptioner()
    )
    app = create_app(service, limits=Limits(per_minute=10**6, wait=0), hosts=())
    schema = schemathesis.openapi.from_asgi("/openapi.json", app)
    photo = random_photo(tmp_path / "photo.png").read_bytes()
    operation = schema[path]["GET" if path in ("/health", "/metrics") else "POST"]
    statuses: set[int] = set()
    calls: list[object] = []

    @given(case=operation.as_strategy())
    @settings(
        max_examples=25, deadline=None, database=None, derandomize=True,
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    def fuzzed(case) -> None:
        body = case.body if isinstance(case.body, dict) else {}
        name = next((name for name in ("photo", "like") if name in body), "")
        if name and case.body[name] and len(calls) % 2:  # random bytes never are a photo
            case.body[name] = photo
        calls.append(case)
        response = case.call_and_validate(excluded_checks=[_ALL_ACCEPTED])
        statuses.add(response.status_code)

    fuzzed()
    assert statuses
    if path in ("/predict", "/explain", "/caption", "/health", "/metrics"):
        assert 200 in statuses, "some of it was a good request"
