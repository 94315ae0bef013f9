"""The serving loop: arrivals, jobs, plans, and the executor that says how long each step takes."""
