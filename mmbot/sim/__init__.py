"""The exchange of paper mode: a matching engine behind the venue's own HTTP and WebSocket formats, fed by a recorded market.

Owns: everything an order can meet outside the bot. Nothing here is imported by the trading path; bot and exchange talk through
loopback sockets only, so the same bot runs against the real venue with other endpoints and keys.

`engine` matches; `auth` and `orders` check who signed what; `wire` writes the venue's JSON; `rest` and `channels` are the two sides clients
see; `ledger` is what survives a crash; `server` binds ports and drives. `tape`, `participants`, `oracle`, `spot` and `gamma` are the world
around it: what the recorded market does, and what the reference feeds say.
"""
