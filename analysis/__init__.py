"""Reading run directories: metrics, statistics, comparisons and pages."""

GENERATOR = '<meta name="generator" content="kvsim">'
"""What every page says of itself, near its beginning: a page is replaced by nothing but a page (`sim.claims`)."""
