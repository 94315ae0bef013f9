"""Many runs of one workload, read together: what sweeps, capacity searches and advice leave.

`observe` reduces one run to what a planner needs of it; `rows` makes a tidy table of many;
`reading` opens the directories; the rest makes tables for the terminal and pages.
"""
