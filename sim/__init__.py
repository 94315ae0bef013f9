"""The simulator: serving loop, schedulers, cost model, telemetry and command line."""
