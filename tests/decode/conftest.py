"""Real decode on the CPU: small models, small pools, one thread."""

from __future__ import annotations

import os

import pytest

torch = pytest.importorskip("torch", reason="real decode needs torch")
torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton's own functions heed it when they are first imported, which transformers does where torch is CUDA's.
    os.environ["TRITON_INTERPRET"] = "1"
