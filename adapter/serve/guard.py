"""What stands before every request: hosts, origins, token, rate, size and time.

A request is read whole before anything looks at it, up to the limit and no further, so a slow or an
endless sender holds one connection and never the model.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

from .limits import Allowance, Limits, same_token

LOOPBACK = ("localhost", "127.0.0.1", "::1")
_OPEN = ("/", "/health")  # nothing of the run is in them
_HEADERS = [
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
]


class Refused(Exception):
    """A request that is answered before it reaches a route."""

    def __init__(self, status: int, error: str, hint: str = "", **headers: str) -> None:
        super().__init__(error)
        self.status, self.error, self.hint = status, error, hint
        self.headers = headers


class Guard:
    """ASGI middleware; see the module.

    Args:
        token: wanted of every request, or empty. hosts: names the server answers to; empty is any.
        observed: told the route's path, the status and the seconds of every request.
    """

    def __init__(
        self,
        app: Any,
        *,
        limits: Limits,
        token: str = "",
        hosts: tuple[str, ...] = LOOPBACK,
        observed: Callable[[str, int, float], Any] = lambda path, status, seconds: None,
    ) -> None:
        self.app, self.limits, self.token, self.hosts = app, limits, token, hosts
        self.allowance = Allowance(limits.per_minute)
        self.observed = observed

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Check a request, read it, hand it on with a deadline, and count it."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return
        started, status = time.monotonic(), 0

        async def answer(message: Any) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message = {**message, "headers": [*message["headers"], *_HEADERS]}
            await send(message)

        deadline = self.limits.seconds
        try:
            self._admit(scope)
            body = await self._read(scope, receive, deadline)
            left = deadline - (time.monotonic() - started)
            await asyncio.wait_for(self.app(scope, _replay(body, receive), answer), max(left, 0.01))
        except Refused as error:
            await _refuse(answer, error)
        except (asyncio.TimeoutError, TimeoutError):
            if not status:
                error = Refused(503, f"The answer took more than {deadline:g} seconds.",
                                "Try again later.", retry_after="5")  # fmt: skip
                await _refuse(answer, error)
        except asyncio.CancelledError:  # the server ends; uvicorn would print a traceback
            pass
        finally:
            self.observed(_route(scope), status, time.monotonic() - started)

    def _admit(self, scope: Any) -> None:
        headers = {name: value.decode("latin-1") for name, value in scope["headers"]}
        client = (scope.get("client") or ("", 0))[0]
        if wait := self.allowance.wait(client):
            raise Refused(
                429, f"More than {self.limits.per_minute} requests a minute.",
                f"Wait {wait:g} seconds.", retry_after=str(max(1, round(wait))),
            )  # fmt: skip
        host = _host(headers.get(b"host", ""))
        if self.hosts and host not in self.hosts:  # a name that was bent to this address
            raise Refused(403, "The server does not go by this name.", "Use its address.")
        origin = headers.get(b"origin")
        if origin and _host_of(origin) != host:  # a page of somebody else
            raise Refused(403, "Pages of other sites may not ask this server.")
        if self.token and scope["path"] not in _OPEN:
            kind, _, given = headers.get(b"authorization", "").partition(" ")
            if kind.lower() != "bearer" or not same_token(given.strip(), self.token):
                raise Refused(
                    401, "The token is absent or wrong.", "Send: Authorization: Bearer TOKEN.",
                    www_authenticate="Bearer",
                )  # fmt: skip

    async def _read(self, scope: Any, receive: Any, seconds: float) -> bytes:
        most = self.limits.bytes
        too_large = Refused(413, f"The request is larger than {self.limits.megabytes:g} MB.")
        for name, value in scope["headers"]:
            if name == b"content-length" and (not value.isdigit() or int(value) > most):
                raise too_large

        async def whole() -> bytes:
            parts, size = [], 0
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Refused(400, "The request was broken off.")
                parts.append(message.get("body", b""))
                size += len(parts[-1])
                if size > most:
                    raise too_large
                if not message.get("more_body"):
                    return b"".join(parts)

        try:
            return await asyncio.wait_for(whole(), seconds)
        except (asyncio.TimeoutError, TimeoutError) as error:
            raise Refused(408, f"The request took more than {seconds:g} seconds.") from error


def _host(netloc: str) -> str:
    """Return the name in a Host header, without the port.

    >>> _host("[::1]:8000"), _host("localhost:8000"), _host("Example.org")
    ('::1', 'localhost', 'example.org')
    """
    if netloc.startswith("["):
        return netloc[1:].partition("]")[0].lower()
    return netloc.partition(":")[0].lower()


def _host_of(origin: str) -> str:
    """Return the name of an origin; of one that is no address, nothing, which no server is called.

    >>> _host_of("http://[::1]:8000"), _host_of("http://["), _host_of("null")
    ('::1', '', '')
    """
    try:
        return _host(urlsplit(origin).netloc)
    except ValueError:
        return ""


def _route(scope: Any) -> str:
    """Return the path pattern of the route that answered; strangers' paths are one, not many."""
    return getattr(scope.get("route"), "path", "other")


def _replay(body: bytes, receive: Any) -> Callable[[], Any]:
    sent = False

    async def again() -> Any:
        nonlocal sent
        if sent:
            return await receive()
        sent = True
        return {"type": "http.request", "body": body, "more_body": False}

    return again


async def _refuse(send: Any, refused: Refused) -> None:
    body = json.dumps({"error": refused.error, "hint": refused.hint}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [
        (name.replace("_", "-").encode(), value.encode()) for name, value in refused.headers.items()
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
