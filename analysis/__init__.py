"""Reading run directories: metrics, statistics, comparisons and pages."""

GENERATOR = '<meta name="generator" content="kvsim">'
"""What every page says of itself, near its beginning: only a page is replaced by a page (`sim.results.claims`)."""
