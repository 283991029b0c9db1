"""Venues: bytes to record fields and intent to messages, one package or file per venue. No sockets, no clock."""
