"""Workloads: the file a user writes, and the requests it describes."""
