"""Results as they are written, and whom they give way to.

    claims      whose results a directory holds, and what may replace them
    kept        which runs of a directory are kept when its workload is run again
    folders     where in the directory each run is
    rundir      the tables of a run, JSON documents, and one process at a time
    listing     the manifest, which lists each result as soon as it is there

`analysis.rundir` says what is in a run directory, and `analysis.reading` reads it.
"""
