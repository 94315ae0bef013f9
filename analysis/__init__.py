"""Reading run directories: metrics, statistics, comparisons and pages."""
