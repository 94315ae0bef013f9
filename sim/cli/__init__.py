"""The command line, `python -m sim` or `kvsim`: one module a command.

`app` names the commands and turns what goes wrong into lines and exit statuses; a command's
module, and with it NumPy, pyarrow or plotly, is imported only when that command runs.
Nothing else imports this package: everything a command does can be done from Python.
"""

from sim.cli.app import main

__all__ = ["main"]
