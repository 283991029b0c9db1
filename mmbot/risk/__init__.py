"""Risk: the last word on every quote, small on purpose.

`gates` says why there may be no quote, `exposure` how much may still be bought. Compiled and pure, like `signals` and `quoting`.
"""
