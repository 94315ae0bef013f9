"""`python -m sim`: the command line without an installed script."""

import sys

from sim.cli import main

sys.exit(main(program="python -m sim"))
