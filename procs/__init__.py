"""What runs: one file per process, each wiring only. A file's name is the process's name everywhere."""
