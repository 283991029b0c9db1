"""What the venue's two channels share: a text frame is one event, or an array of events, each named by ``event_type``.

Owns: how a frame is taken apart when it does not decode as a whole. Reads and writes nothing.
Can go wrong: text that is no JSON raises one of UNREADABLE.
"""

import msgspec

#: what decoding a text that is not what it should be can raise (the last one: brackets a thousand deep)
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class _Named(msgspec.Struct):
    event_type: str


_NAMED = msgspec.json.Decoder(_Named)
_PARTS = msgspec.json.Decoder(list[msgspec.Raw])


def parts(data) -> list:
    """The events of a frame, undecoded. Errors: UNREADABLE when an array is no array."""
    return _PARTS.decode(data) if bytes(data[:64]).lstrip()[:1] == b"[" else [data]


def event_name(part) -> str:
    """The ``event_type`` of an event, "" when it has none that can be read."""
    try:
        return _NAMED.decode(part).event_type
    except UNREADABLE:
        return ""
