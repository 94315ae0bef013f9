"""`python -m sim`: the command line without an installed script."""

from sim.cli import script

script("python -m sim")
