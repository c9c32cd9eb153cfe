"""What a stranger may cost: bytes, pixels, seconds, requests a minute, names in a question."""

from __future__ import annotations

import hmac
import math
import time
from collections import OrderedDict
from pathlib import Path

from pydantic import Field

from ...pipeline.config import Section
from ...pipeline.errors import UserError
from ...pipeline.raster import open_raster

_CLIENTS = 10_000  # whose allowance is remembered
MAX_NAMES = 1000
MAX_NAME_LENGTH = 200


class Limits(Section):
    """The limits of a server; see ``aape serve --help`` for those with an option."""

    megabytes: float = Field(default=20, gt=0, description="of a request, photo included")
    megapixels: float = Field(default=50, gt=0, description="of a photo, before it is decoded")
    seconds: float = Field(default=30, gt=0, description="for a request, from first byte to answer")
    per_minute: int = Field(default=600, ge=1, description="requests of one client")
    batch: int = Field(default=16, ge=1, description="photos through the encoder at once")
    wait: float = Field(default=0.004, ge=0, description="seconds that a batch waits for company")
    waiting: int = Field(default=256, ge=1, description="requests in the queue; more are refused")

    @property
    def bytes(self) -> int:
        """Bytes of a request."""
        return int(self.megabytes * 1_000_000)


class Allowance:
    """Requests of each client: a bucket that refills steadily and holds a minute's worth.

    >>> allowance = Allowance(60)
    >>> allowance.wait("a", now=0.0)
    0.0
    """

    def __init__(self, per_minute: int) -> None:
        self.size, self.rate = float(per_minute), per_minute / 60
        self._left: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def wait(self, client: str, now: float | None = None) -> float:
        """Take one request from a client; return 0, or the seconds until there is another."""
        now = time.monotonic() if now is None else now
        left, since = self._left.pop(client, (self.size, now))
        left = min(self.size, left + (now - since) * self.rate)
        allowed = left >= 1
        self._left[client] = (left - 1 if allowed else left, now)
        while len(self._left) > _CLIENTS:
            self._left.popitem(last=False)
        return 0.0 if allowed else math.ceil((1 - left) / self.rate * 100) / 100


def same_token(given: str, wanted: str) -> bool:
    """Compare two tokens in a time that says nothing of where they differ."""
    return hmac.compare_digest(given.encode(), wanted.encode())


def check_size(photo: Path, limits: Limits) -> None:
    """Refuse a photo by its header, before it is decoded.

    Raises:
        UserError: it is no picture, or has too many pixels. The sentence names no path.
    """
    from PIL import UnidentifiedImageError

    try:
        with open_raster(photo) as opened:
            width, height = opened.size
    except UnidentifiedImageError as error:
        raise UserError("The photo is no picture of a format that is read.") from error
    except Exception as error:  # Pillow's readers raise anything, see pipeline.pictures
        raise UserError(f"The photo cannot be read: {without_path(error, photo)}.") from error
    if width * height > limits.megapixels * 1e6:
        raise UserError(
            f"The photo has {width * height / 1e6:.1f} megapixels ({width:,} x {height:,}); the"
            f" limit is {limits.megapixels:g}."
        )


def without_path(error: Exception, photo: Path) -> str:
    """Return what an error says, the place of the photo on this machine left out."""
    text = error.message if isinstance(error, UserError) else str(error)
    return text.replace(str(photo), "the photo").replace(str(photo.parent), "").strip(" .")
