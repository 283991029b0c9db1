"""Quotes without processes: a notebook builds a state, from arrays or from files, and gets what the core would want of it.

Owns: the state a person can write down (`state`), its reading from the files of document 3 (`files`), and `quoter`, which puts it into the compiled step that
trades. No process, no shared memory, no clock: time is part of the state. Public names are those of `mmbot` itself: Quoter, MarketState, Quotes, read_state.
Can go wrong: a value that cannot be (UserError or ValueError naming it). What the core would not quote is no error: the answer names the gates.
"""
