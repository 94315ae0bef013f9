"""Reads packed arrays back, as a page's script does."""

from __future__ import annotations

import base64
import zlib
from typing import Any

import numpy as np
import numpy.typing as npt

from analysis.page.pack import Packed


def unpack(packed: Packed) -> npt.NDArray[Any]:
    kind = np.dtype(packed["type"])
    planes = np.frombuffer(zlib.decompress(base64.b64decode(packed["data"])), np.uint8)
    return np.ascontiguousarray(planes.reshape(kind.itemsize, packed["length"]).T).view(kind).reshape(-1)
