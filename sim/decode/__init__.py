"""Real decode: the plans and block tables of the simulator, carried out by PyTorch.

Serving loop, schedulers, allocators and telemetry are those of the simulation; only the
executor differs.  It runs each plan through a Hugging Face model whose attention reads and
writes K/V by the allocator's own block table, and the time that took advances the clock.

This package alone imports torch and transformers, and only its modules do: importing
`sim.decode` itself costs nothing and works without them.
"""

from __future__ import annotations

from importlib.util import find_spec

from sim.errors import UserError


def demand_extras() -> None:
    """Raise UserError unless torch and transformers can be imported."""
    missing = [name for name in ("torch", "transformers") if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} not installed; real decode needs: pip install 'kvsim[torch]'")
