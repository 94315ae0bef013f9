"""Workloads: the file a user writes, and the requests that come of it."""
