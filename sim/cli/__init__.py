"""The command line, `python -m sim` or `kvsim`: one module a command.

`commands` names them, `arguments` reads what each takes from its signature, and `app` turns what
goes wrong into lines and exit statuses; a command's module, and with it NumPy, pyarrow or plotly,
is imported only when that command runs.
Nothing else imports this package: everything a command does can be done from Python.
"""

from __future__ import annotations

import sys
from functools import partial
from typing import TYPE_CHECKING

from sim.cli.process import settle, whole

if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import NoReturn


def main(arguments: Sequence[str] | None = None, program: str = "kvsim") -> int:
    """Set the process up and run one command line in it; see `sim.cli.app.main`."""
    settle()
    try:
        from sim.cli.app import main  # noqa: PLC0415  (what it imports is to find the process set up)

        return main(arguments, program)
    except KeyboardInterrupt:  # while modules were imported; `app` tells of all others
        sys.stderr.write("interrupted\n")
        return 130


def script(program: str = "kvsim") -> NoReturn:
    """Be the process of one command line, as an installed script is."""
    whole(partial(main, program=program))
