"""Checks whether anything answers at an address; cluster libraries would wait for minutes before they say so."""

from __future__ import annotations

import socket
from urllib.parse import urlsplit

TIMEOUT_S = 10.0


def knock(address: str) -> None:
    """Open and close a connection to `host:port` or `scheme://host:port`.

    Raises:
        OSError: nobody answers.
        ValueError: it is no address.

    """
    parts = urlsplit(address if "://" in address else f"//{address}")
    if parts.hostname is None or parts.port is None:
        raise ValueError("it is not host:port")
    socket.create_connection((parts.hostname, parts.port), timeout=TIMEOUT_S).close()
