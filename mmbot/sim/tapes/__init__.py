"""The tapes: what the exchange simulator replays, one module per tape, and the bundled recording.

Owns: `btc15m` (bundled recording), `chainlink_day` (a recorded day of Chainlink prints, given as a directory), `probe` (calm book
that steps, for measuring latency), `quotes` (generated quotes that fill what was not recorded) and `convert` (how the bundled
file was made). Read by `mmbot.sim.tape`. Each tape names what in it is recorded, generated or derived (``ORIGIN``).
"""
