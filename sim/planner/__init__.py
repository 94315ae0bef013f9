"""The questions a planner asks: many runs of one workload, each a little different.

    vary        what `--vary` says: a place in the workload file and the values it takes
    grid        every combination of those values, as workloads
    job         one simulation that knows everything it needs, so that any process may do it
    backends    where jobs are done: here, on the cores of this machine, on a Ray or a Dask cluster
    store       one file for each finished job, by what it computed: what resuming relies on
    execute     jobs through a backend into a store: retries, failures, progress
    sample      how long a job will take
    source      whether replications differ, and prompts begin alike
    sweep       a grid, from end to end
    slo         what a run must hold
    rates       the rate of a workload, and the others that a search visits
    capacity    the highest rate that holds an SLO
    bottleneck  what limits a workload
    knobs       the settings that may be changed
    adviser     changes tried and compared
    advice      which settings to change

All of it calls `sim.runner` for single runs and leaves directories that `analysis.planner` reads.
"""
