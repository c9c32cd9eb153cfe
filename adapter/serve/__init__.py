"""A run as a service: HTTP with OpenAPI, and one page for people."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

from ...pipeline.errors import UserError, missing_extra
from ...pipeline.progress import step
from .guard import LOOPBACK

if TYPE_CHECKING:
    from .limits import Limits

__all__ = ["serve"]
TOKEN_VARIABLE = "AAPE_TOKEN"


def serve(
    run: str | Path,
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token: str = "",
    captions: str | Path | None = None,
    photos: str | Path | None = None,
    bank: str | Path | None = None,
    limits: Limits | None = None,
    checkpoint: str = "",
    device: str = "",
) -> None:
    """Serve a run until it is interrupted.

    Args:
        run: a run of classification, or one trained on captions.
        host: address to listen at; any but loopback needs a token.
        port: of the server.
        token: wanted of every request; by default the environment variable ``AAPE_TOKEN``.
        captions: a run trained on captions, for captions and questions.
        photos: a folder that may be searched.
        bank: the run's, where it moved; for the sentences of an explanation.
        limits: of size, pixels, time and rate.
        checkpoint: local weights of the encoder, where the run was made with such.
        device: ``auto``, ``cpu``, ``cuda``; by default the run's.

    Raises:
        UserError: the run cannot be opened, the server would be open to others without a token, or
            the port is taken.
    """
    uvicorn = _uvicorn()
    token = token or os.environ.get(TOKEN_VARIABLE, "")
    check_access(host, token)
    from .app import create_app
    from .service import START_WITH, VERBS, open_service

    service = open_service(
        run, captions=captions, photos=photos, bank=bank, checkpoint=checkpoint, device=device
    )
    service.warm_up()
    hosts = LOOPBACK if host in LOOPBACK else ()
    app = create_app(service, limits=limits, token=token, hosts=hosts)
    listening = _listen(host, port)
    shown = f"[{host}]" if ":" in host else host
    step(f"Serving {', '.join(service.offers)} at http://{shown}:{listening.getsockname()[1]}/")
    for verb in VERBS:
        if verb not in service.offers:
            step(f"Not {verb}: {START_WITH[verb]}")
    config = uvicorn.Config(
        app, log_level="warning", server_header=False, limit_concurrency=1000,
        timeout_graceful_shutdown=5,
    )  # fmt: skip
    uvicorn.Server(config).run(sockets=[listening])


def check_access(host: str, token: str) -> None:
    """Refuse to listen to others without a token that cannot be guessed.

    Raises:
        UserError: it would.
    """
    if host not in LOOPBACK and not token:
        raise UserError(
            f"At {host} everybody who reaches this machine could ask the model.",
            f"Give a --token or set {TOKEN_VARIABLE}, or listen at 127.0.0.1.",
        )
    if token and (len(token) < 16 or not token.isascii() or not token.isprintable()):
        raise UserError(
            "The token is too easy to guess or cannot be sent: it needs 16 ASCII characters.",
            'Make one with: python -c "import secrets; print(secrets.token_urlsafe())"',
        )


def _listen(host: str, port: int):
    import socket

    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise UserError(
            f"Cannot listen at {host}, port {port}: {error.strerror or error}.",
            "Choose another --port; 0 takes any that is free.",
        ) from error
    return listening


def _uvicorn():
    for module, package in (
        ("fastapi", "fastapi"),
        ("uvicorn", "uvicorn"),
        ("python_multipart", "python-multipart"),
        ("prometheus_client", "prometheus-client"),
    ):
        try:
            __import__(module)
        except ImportError as error:
            raise missing_extra(package, "serve", "aape serve") from error
    import uvicorn

    return uvicorn
