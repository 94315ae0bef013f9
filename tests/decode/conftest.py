"""Real decode on the CPU: small models, small pools, one thread."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

import pytest

from sim.decode.quiet import Quiet

torch = pytest.importorskip("torch", reason="real decode needs torch")
torch.set_num_threads(1)
if not torch.cuda.is_available():
    # Triton's own functions heed it when they are first imported, which transformers does where torch is CUDA's.
    os.environ["TRITON_INTERPRET"] = "1"


@pytest.fixture(scope="module", autouse=True)
def _soon_quiet() -> Iterator[None]:
    """Choose cores in a tenth of a second: for the usual four, every core is busy and the tests wait.

    `tests/cli` validates with a whole watch, and `test_quiet.py` tests what a watch sees.
    """
    with pytest.MonkeyPatch.context() as patched:
        for module in ("timed", "calibrate"):
            patched.setattr(f"sim.decode.{module}.Quiet", partial(Quiet, 0.1))
        yield
