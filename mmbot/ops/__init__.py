"""Seeing and steering the running group from outside: read-only views of shared memory, the supervisor's client, start and stop.

Owns: the run directory's lock and effective config, the shapes of status, lag and latency, the doctor. Writes no segment.
"""
