"""What a server sends back is a stranger's: its size, its types and its words are checked here."""

from __future__ import annotations

import time
import zlib
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

MOST_BYTES = 8 << 20  # of an answer, unpacked; one prompt has some hundred
_LONGEST_REASON = 40
_CHUNK = 1 << 16


class OddBody(ValueError):
    """A body that is too large, damaged, or packed in a way nobody asked for."""


def guarded_client(openai: Any, timeout: float) -> Any:
    """Return an HTTP client that follows no redirects and reads no more than it should.

    A redirect would carry the prompts to a host that nobody named. A body is unpacked here, up to
    :data:`MOST_BYTES` and ``timeout`` seconds in all, however slowly it drips.
    """
    base = next(c for c in openai.DefaultHttpxClient.__mro__ if c.__module__.startswith("httpx"))
    library = __import__(base.__module__.partition(".")[0])  # httpx, or its successor

    class Limited(library.SyncByteStream):
        def __init__(self, inner: Any, packing: str) -> None:
            self._inner, self._packing = inner, packing
            self._end = time.monotonic() + timeout

        def __iter__(self) -> Iterator[bytes]:
            return unpacked(self._watched(), self._packing)

        def _watched(self) -> Iterator[bytes]:
            for part in self._inner:
                if time.monotonic() > self._end:
                    raise library.ReadTimeout(f"no whole answer within {timeout:g} seconds")
                yield part

        def close(self) -> None:
            self._inner.close()

    def limit(response: Any) -> None:
        packing = response.headers.pop("content-encoding", "") or ""
        response.stream = Limited(response.stream, packing.strip().lower())

    return openai.DefaultHttpxClient(
        follow_redirects=False,
        timeout=timeout,
        headers={"accept-encoding": "identity"},
        event_hooks={"request": [], "response": [limit]},
    )


def unpacked(parts: Iterator[bytes], packing: str) -> Iterator[bytes]:
    """Yield the unpacked bytes of a body in small pieces.

    Raises:
        OddBody: they are more than :data:`MOST_BYTES`, or packed in an unknown way.
    """
    if packing in ("", "identity"):
        pieces = parts
    elif packing in ("gzip", "x-gzip", "deflate"):
        pieces = _inflated(parts)
    else:
        raise OddBody(f"an answer packed with {packing[:20]!r}, which was not asked for")
    total = 0
    for piece in pieces:
        total += len(piece)
        if total > MOST_BYTES:
            raise OddBody(f"an answer of more than {MOST_BYTES >> 20} MB")
        yield piece


def _inflated(parts: Iterator[bytes]) -> Iterator[bytes]:
    unpacker = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, told by the header
    try:
        for part in parts:
            left = part
            while left and not unpacker.eof:
                yield unpacker.decompress(left, _CHUNK)
                left = unpacker.unconsumed_tail
        yield unpacker.flush()
    except zlib.error as error:
        raise OddBody(f"an answer that is damaged ({error})") from error


def text_of(message: Any) -> str | None:
    """Return the words of a message: its content, parts of content, or a refusal; else nothing."""
    content = message.content
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = [part.get("text") if isinstance(part, dict) else part for part in content]
        words = [part for part in parts if isinstance(part, str)]
        if len(words) == len(parts):
            return "".join(words)
    refusal = getattr(message, "refusal", None)
    return refusal if isinstance(refusal, str) and refusal else None


def only_thought(message: Any, reason: str) -> bool:
    """Say whether a message without words is the end of the matter: cut off, or a thought alone."""
    thought = [getattr(message, name, None) for name in ("reasoning_content", "reasoning")]
    return reason in ("length", "content_filter") or any(isinstance(t, str) and t for t in thought)


def reason_of(choice: Any) -> str:
    """Return why a text ended, or nothing where a server says something odd."""
    reason = choice.finish_reason
    return reason if isinstance(reason, str) and len(reason) <= _LONGEST_REASON else ""


def tokens_of(reply: Any) -> int:
    """Return how many tokens a text has, or 0 where a server says something odd."""
    count = getattr(getattr(reply, "usage", None), "completion_tokens", None)
    if not isinstance(count, int) or isinstance(count, bool):
        return 0
    return count if 0 <= count < 2**31 else 0


def pause_of(header: str) -> float:
    """Return the seconds that a server asks to wait, 0 where it says nothing or something odd.

    It may say seconds or a date (RFC 9110, section 10.2.3).

    >>> pause_of("2.5"), pause_of("Wed, 21 Oct 2015 07:28:00 GMT"), pause_of("soon")
    (2.5, 0.0, 0.0)
    """
    try:
        seconds = float(header)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(header).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return seconds if 0 < seconds < float("inf") else 0.0


def printable(text: str, most: int = 300) -> str:
    """Return the first line of a server's words without what would move a terminal's cursor."""
    line = next(iter(text[: 4 * most].splitlines()), "")
    return "".join(c if c.isprintable() else " " for c in line).strip()[:most].rstrip(".")
