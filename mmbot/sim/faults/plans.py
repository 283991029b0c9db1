"""What a fault wants done to one request: the plan, and answers that a fault gives itself.

Owns: two records, written by `requests`, carried out by `mmbot.sim.http.Service.respond`. Pure.
"""

import msgspec


class Answer(msgspec.Struct):
    """An HTTP answer."""
    status: int
    headers: dict[str, str]
    body: bytes


class RequestPlan(msgspec.Struct):
    """What happens to one request, in this order: wait, refuse or run, mangle the answer, wait, answer or cut the connection."""
    delay_before_s: float = 0.0
    refuse: Answer | None = None
    run: bool = True
    batch: list[str] | None = None       # texts for the legs of a POST /orders, "" for a leg that is left alone
    mangle: list[tuple] = []
    delay_after_s: float = 0.0
    lose_answer: bool = False
