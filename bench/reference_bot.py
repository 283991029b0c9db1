"""What an ordinary Python bot for this venue looks like, in one file: websockets, json, and the official V2 client's own calls.

It follows the best ask of the Up token, which its own bids do not touch: when the best ask moves it signs a new post-only BUY three
ticks below, posts it, and cancels the one before. Nothing in it is slowed down on purpose; tick size and neg-risk are given so that no look-up stands on its path.
Run by `bench/tick_to_order.py`; talks to the exchange simulator on loopback only.
"""

import argparse
import asyncio
import json
import sys
import time
import urllib.request

import websockets
from py_clob_client_v2 import ClobClient, OrderArgs, OrderPayload, OrderType, PartialCreateOrderOptions, Side


def market_tokens(gamma_url: str, wall_s: float) -> tuple[str, str]:
    """(Up token, tick) of the current 15 minute window."""
    slug = f"btc-updown-15m-{int(wall_s) // 900 * 900}"
    with urllib.request.urlopen(f"{gamma_url}/events/slug/{slug}", timeout=5) as answer:
        market = json.load(answer)["markets"][0]
    tokens, outcomes = json.loads(market["clobTokenIds"]), json.loads(market["outcomes"])
    return tokens[outcomes.index("Up")], str(market["orderPriceMinTickSize"])


class Bot:
    def __init__(self, clob_url: str, key: str, token: str, tick: str):
        self.client = ClobClient(host=clob_url, chain_id=137, key=key)
        self.client.set_api_creds(self.client.create_or_derive_api_key())
        self.token, self.options = token, PartialCreateOrderOptions(tick_size=tick, neg_risk=False)
        self.best_ask, self.live, self.posts = "", "", 0

    def on_frame(self, text: str) -> None:
        frame = json.loads(text)
        for event in frame if isinstance(frame, list) else [frame]:
            for change in event.get("price_changes", ()):
                if change["asset_id"] == self.token and change["best_ask"] != self.best_ask:
                    self.best_ask = change["best_ask"]
                    self.requote(round(float(self.best_ask) - 0.03, 2))

    def requote(self, price: float) -> None:
        order = self.client.create_order(OrderArgs(token_id=self.token, price=price, size=5.0, side=Side.BUY), self.options)
        try:
            answer = self.client.post_order(order, OrderType.GTC, post_only=True)
            self.posts += 1
        except Exception as e:      # the client's own error type hides the status; a reject is part of an ordinary day
            print(f"reject: {e}", file=sys.stderr)
            return
        if self.live:
            self.client.cancel_order(OrderPayload(orderID=self.live))
        self.live = answer["orderID"]


async def run(bot: Bot, ws_url: str, seconds: float) -> None:
    async with websockets.connect(f"{ws_url}/market", max_size=None) as ws:
        await ws.send(json.dumps({"type": "market", "assets_ids": [bot.token]}))
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                text = await asyncio.wait_for(ws.recv(), 1)
            except TimeoutError:
                continue
            if text != "PONG":
                bot.on_frame(text)


def main() -> None:
    args = argparse.ArgumentParser(description=__doc__)
    args.add_argument("--base-port", type=int, required=True)
    args.add_argument("--key", required=True)
    args.add_argument("--seconds", type=float, default=20)
    a = args.parse_args()
    # the edge refuses Python's default User-Agent, as the venue's does
    with urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:{a.base_port}/time", headers={"User-Agent": "reference"}), timeout=5) as answer:
        wall_s = json.load(answer)
    token, tick = market_tokens(f"http://127.0.0.1:{a.base_port + 1}", wall_s)
    bot = Bot(f"http://127.0.0.1:{a.base_port}", a.key, token, tick)
    asyncio.run(run(bot, f"ws://127.0.0.1:{a.base_port + 2}/ws", a.seconds))
    print(json.dumps({"posts": bot.posts}))


if __name__ == "__main__":
    main()
