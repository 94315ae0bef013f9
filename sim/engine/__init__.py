"""The serving loop: arrivals, jobs and their memory, what a scheduler and an executor are, and the record of a run."""
