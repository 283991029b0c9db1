"""From a desired quote to a signed order on the wire: amounts, signatures, requests, connections, pre-signed orders.

Writes nothing shared. The executor and the guardian are the callers; everything here is told the time.
"""
