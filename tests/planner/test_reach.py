"""Whether anything answers where a cluster is said to be."""

from __future__ import annotations

import socket

import pytest

from sim.planner.backends.reach import knock


@pytest.mark.parametrize("scheme", ["", "tcp://", "ray://"])
def test_it_is_known_at_once_whether_somebody_answers(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        where = f"{scheme}127.0.0.1:{server.getsockname()[1]}"
        knock(where)
    with pytest.raises(OSError, match="refused"):
        knock(where)


@pytest.mark.parametrize("address", ["cluster", "tcp://cluster", ":8786", "tcp://:8786", "cluster:port"])
def test_an_address_is_a_host_and_a_port(address: str) -> None:
    with pytest.raises(ValueError, match=r"host:port|Port could not be cast"):
        knock(address)
