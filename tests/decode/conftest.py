"""Real decode on the CPU: small models, small pools, one thread."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="real decode needs torch")
torch.set_num_threads(1)
