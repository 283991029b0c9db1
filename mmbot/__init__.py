"""What the bot thinks: pure logic, venue formats, the process harness and the command line.

Imports `shm_layout`, is imported by `procs`. Nothing in here starts by being imported.
"""
