"""What turns shares back into dollars on chain: the settler's journal, wallet and operations.

Owns nothing itself; see `settler` (the life of an operation), `journal` (what survives a crash), `wallet` (the official client, the relayer and a
node), `effects` (what a transaction did). What is worth settling is decided in `mmbot.inventory.settlement`. Used by the settler's process alone,
except that the executor reads the journal.
"""
