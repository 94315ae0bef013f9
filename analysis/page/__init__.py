"""What the page shows, reduced from run directories to a few compact arrays.

Python chooses and aggregates; the page's own JavaScript only draws.  Whatever is left out
is counted, and the page says so.
"""
