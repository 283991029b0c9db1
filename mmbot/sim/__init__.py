"""The exchange of paper mode: a matching engine behind the venue's own HTTP and WebSocket formats, fed by a recorded market.

Owns: everything an order can meet outside the bot. Nothing here is imported by the trading path; bot and exchange talk through
loopback sockets only, so the same bot runs against the real venue with other endpoints and keys.
"""
