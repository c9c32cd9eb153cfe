"""A bounded load test of ``aape serve`` on loopback, and a photo through a model kept open.

    python benchmarks/serving.py RUN PHOTO... [--requests 300] [--clients 16]

Prints, from one run on one machine: seconds a photo with ``aape.predict`` and a kept-open model,
then requests a second and latencies with one client and with many.
"""

from __future__ import annotations

import argparse
import statistics
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import uvicorn

import aape
from aape.adapter.serve import _listen
from aape.adapter.serve.app import create_app
from aape.adapter.serve.limits import Limits
from aape.adapter.serve.service import Service


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("photos", type=Path, nargs="+")
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--clients", type=int, default=16)
    options = parser.parse_args()
    model = aape.open_model(options.run)
    kept_open(model, options.photos)
    for clients in (1, options.clients):
        load(model, options.photos, options.requests, clients)


def kept_open(model: aape.OpenModel, photos: list[Path]) -> None:
    """Time one photo after another."""
    aape.predict(model, photos[:1])
    times = []
    for path in photos:
        start = time.perf_counter()
        aape.predict(model, [path])
        times.append(time.perf_counter() - start)
    print(f"kept open: median {statistics.median(times) * 1e3:.1f} ms a photo, {len(times)} photos")


def load(model: aape.OpenModel, photos: list[Path], requests: int, clients: int) -> None:
    """Send requests from several threads and time each."""
    listening = _listen("127.0.0.1", 0)
    app = create_app(Service(model), limits=Limits(per_minute=10**6))
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    contents = [path.read_bytes() for path in photos]
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"

    def ask(number: int) -> tuple[int, float]:
        start = time.perf_counter()
        photo = {"photo": contents[number % len(contents)]}
        status = http.post("/predict", files=photo).status_code
        return status, time.perf_counter() - start

    with httpx.Client(base_url=url, trust_env=False, timeout=60) as http:
        ask(0)
        start = time.perf_counter()
        with ThreadPoolExecutor(clients) as pool:
            done = list(pool.map(ask, range(requests)))
        seconds = time.perf_counter() - start
        batches = [
            line for line in http.get("/metrics").text.splitlines() if "batch_size_count" in line
        ]
    server.should_exit = True
    thread.join()
    times = sorted(t for _, t in done)
    failed = sum(status != 200 for status, _ in done)
    median, late = times[len(times) // 2] * 1e3, times[int(len(times) * 0.95)] * 1e3
    print(
        f"{clients} clients: {requests} requests, {failed} failed,"
        f" {requests / seconds:.0f} a second, median {median:.0f} ms, 95 % {late:.0f} ms,"
        f" {batches[0].split()[-1] if batches else '?'} passes"
    )


if __name__ == "__main__":
    main()
