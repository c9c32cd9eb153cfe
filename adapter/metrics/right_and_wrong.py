"""Right and wrong of every test image, small enough to lie in a table: one bit an image."""

from __future__ import annotations

import base64
import binascii

import numpy as np


def pack(right: np.ndarray) -> str:
    """Return right and wrong (n,) as text, six images a letter.

    >>> pack(np.array([True, False, True]))
    'oA=='
    """
    return base64.b64encode(np.packbits(right.astype(bool)).tobytes()).decode("ascii")


def unpack(text: str, images: int) -> np.ndarray:
    """Return right and wrong (n,) of :func:`pack`.

    Raises:
        ValueError: the text is damaged or of another number of images.

    >>> unpack("oA==", 3)
    array([ True, False,  True])
    """
    try:
        packed = np.frombuffer(base64.b64decode(text, validate=True), np.uint8)
    except binascii.Error as error:
        raise ValueError("right and wrong of the test images are damaged") from error
    if images < 0 or len(packed) != (images + 7) // 8:
        raise ValueError(f"right and wrong are of another number of images than {images}")
    return np.unpackbits(packed, count=images).astype(bool)
