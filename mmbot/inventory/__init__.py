"""What we hold: positions per window, with cost, built only from trades.

Owns nothing itself; see `positions`. Written by the executor's process alone.
"""
