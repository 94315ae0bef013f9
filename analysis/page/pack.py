"""Arrays in a page: byte planes, compressed, in base64.

A typed array becomes its bytes with all first bytes together, then all second bytes and so
on (what Blosc calls shuffle), deflated.  Counters and times change slowly, so most planes
are nearly constant and a column of a million numbers is a few kilobytes; any browser can
undo it with `DecompressionStream` and a loop.  In such planes runs of one byte are nearly all
that there is to compress: to look for nothing else takes two thirds of the time, for a size
within a twentieth.
"""

from __future__ import annotations

import base64
import zlib
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

TYPES = {"float64": "f8", "float32": "f4", "int32": "i4", "uint32": "u4", "uint16": "u2", "uint8": "u1", "int8": "i1"}


class Packed(TypedDict):
    """One array as JSON."""

    type: str
    length: int
    data: str


def pack(array: npt.NDArray[Any]) -> Packed:
    """Encode an array of a type that JavaScript has; other integers become the smallest that fits.

    Raises:
        ValueError: integers larger than 32 bits.

    """
    array = np.ascontiguousarray(array).reshape(-1)
    if array.dtype.kind in "iub":
        array = array.astype(_smallest(array))
    name = array.dtype.name
    planes = array.view(np.uint8).reshape(-1, array.dtype.itemsize).T
    deflate = zlib.compressobj(strategy=zlib.Z_RLE)
    data = deflate.compress(planes.tobytes()) + deflate.flush()
    return {"type": TYPES[name], "length": len(array), "data": base64.b64encode(data).decode()}


def _smallest(array: npt.NDArray[Any]) -> npt.DTypeLike:
    if array.dtype.kind == "b" or not len(array):
        return np.uint8
    low, high = int(array.min()), int(array.max())
    for kind in (np.uint8, np.int8, np.uint16, np.uint32, np.int32):
        if np.iinfo(kind).min <= low and high <= np.iinfo(kind).max:
            return kind
    raise ValueError(f"integers from {low} to {high} do not fit in 32 bits")
