"""The account side of the CLOB: API keys of three kinds, closed-only status, balances and allowances, notifications.

Owns: the wallets (which EOA a funder address belongs to), closed-only and banned addresses, the notifications of every account. Who calls:
the CLOB port (`mmbot.sim.rest`), the hub (notifications of fills, cancels and resolutions). What can go wrong: bad arguments and foreign
keys, answered with the venue's texts.

Source: venue protocol, server, keys, account.
"""

from collections import deque

from mmbot.sim import wire
from mmbot.sim.auth import Credentials, Keys
from mmbot.sim.engine import SIDES, Exchange, Market, Order, Trade, u6_text
from mmbot.sim.http import ApiError, Request
from mmbot.sim.ledger import Ledger
from shm_layout.records import DOWN, UP

KEEP_NOTICES = 200
N_CANCEL, N_FILL, N_RESOLVED, N_FILL_FAILED = 1, 2, 4, 8
ASSETS = ("COLLATERAL", "CONDITIONAL", "CONDITIONAL-V2")
E_CREATE, E_DERIVE = "Could not create api key", "Could not derive api key!"


class Accounts:
    """Routes about who a client is and what it has."""

    def __init__(self, exchange: Exchange, keys: Keys):
        self.exchange, self.keys = exchange, keys
        self.wallets: dict[str, str] = {}              # funder address -> EOA
        self.funders: dict[tuple[str, int], str] = {}  # (EOA, signature type) -> funder address
        self.closed_only: set[str] = set()             # EOAs that may only sell, in lower case; "*" means everybody
        self.banned: set[str] = set()
        self.ledger: Ledger | None = None              # set by the server once the past is recovered
        self._notices: dict[str, deque] = {}           # API key -> notices, newest first
        self._count = 0

    def open_routes(self) -> dict:
        """(method, path) -> handler of routes that authenticate by wallet."""
        return {("POST", "/auth/api-key"): self._create, ("GET", "/auth/derive-api-key"): self._derive}

    def routes(self) -> dict:
        """(method, path) -> handler(request, who) of routes that need an API key."""
        return {
            ("GET", "/auth/api-keys"): lambda r, who: {"apiKeys": self.keys.of(who.address)},
            ("DELETE", "/auth/api-key"): self._drop,
            ("POST", "/auth/readonly-api-key"): lambda r, who: {"apiKey": self.keys.create_readonly(who)},
            ("GET", "/auth/readonly-api-keys"): lambda r, who: self.keys.readonly(who),
            ("DELETE", "/auth/readonly-api-key"): self._drop_readonly,
            ("POST", "/auth/builder-api-key"): lambda r, who: self.keys.create_builder(who),
            ("GET", "/auth/builder-api-key"): lambda r, who: self.keys.builders(who),
            ("DELETE", "/auth/builder-api-key"): self._drop_builder,
            ("GET", "/auth/ban-status/closed-only"): lambda r, who: {"closed_only": self.is_closed_only(who.address)},
            ("GET", "/balance-allowance"): self._balance, ("GET", "/balance-allowance/update"): self._update,
            ("GET", "/notifications"): lambda r, who: list(self._notices.get(who.api_key, ())),
            ("DELETE", "/notifications"): self._drop_notices,
        }

    def is_closed_only(self, address: str) -> bool:
        """May this EOA only close what it holds?"""
        return address.lower() in self.closed_only or "*" in self.closed_only

    def used(self, funder: str, eoa: str, signature_type: int) -> None:
        """An order of this funder was signed by this EOA; the first time goes into the ledger."""
        kind = (eoa, signature_type)
        if self.funders.get(kind) != funder:
            self.funders[kind] = funder
            if self.ledger is not None:
                self.ledger.wallet(funder, *kind)

    # ---- keys ----

    def _create(self, r: Request):
        """The first key of (address, nonce); an address that has it already must derive it."""
        address, nonce = self.keys.l1(r.headers)
        if self.keys.exists(address, nonce):
            raise ApiError(400, E_CREATE)
        return self._known(address, nonce)

    def _derive(self, r: Request):
        """The key of (address, nonce) again. After a restart the exchange may have forgotten one that it can still work out."""
        address, nonce = self.keys.l1(r.headers)
        if not self.keys.exists(address, nonce):
            raise ApiError(400, E_DERIVE)
        return self._known(address, nonce)

    def _known(self, address: str, nonce: int) -> dict:
        c = self.keys.create(address, nonce)
        if self.ledger is not None:
            self.ledger.key(address, nonce)
        self.exchange.account(address)
        return {"apiKey": c.api_key, "secret": c.secret, "passphrase": c.passphrase}

    def _drop(self, r: Request, who: Credentials):
        self.keys.remove(who.api_key)
        return "OK"

    def _drop_readonly(self, r: Request, who: Credentials):
        if not self.keys.drop_readonly(who, str(r.json(dict).get("key") or "")):
            raise ApiError(404, "readonly api key not found")
        return True

    def _drop_builder(self, r: Request, who: Credentials):
        self.keys.drop_builders(who)
        return "OK"

    # ---- money ----

    def _balance(self, r: Request, who: Credentials):
        """Dollars, or settled shares, of the account that this key trades for; base units as text."""
        kind, asset = r.number("signature_type", 0), r.arg("asset_type")
        if asset not in ASSETS or kind > 3:
            raise ApiError(400, "Invalid asset type" if asset not in ASSETS else "invalid signature_type")
        funder = who.address if kind == 0 else self.funders.get((who.address, kind))
        account = self.exchange.account(funder) if funder else None
        if asset == "COLLATERAL":
            balance = account.cash_u6 if account else self.exchange.settings.cash_u6
        else:
            token = r.arg("token_id")
            market = self.exchange.market_by_token(token)
            if not token.isdecimal() or (market is not None and (market.spec.version == "v2") != (asset == "CONDITIONAL-V2")):
                raise ApiError(400, "Invalid token id")
            balance = account.shares.get(token, 0) - account.unsettled.get(token, 0) if account else 0
        if account and self.exchange.hooks is not None:
            balance = self.exchange.hooks.known_u6(account, "" if asset == "COLLATERAL" else r.arg("token_id"), balance)
        return {"balance": str(balance), "allowances": {address: wire.UNLIMITED for address in wire.EXCHANGES}}

    def _update(self, r: Request, who: Credentials):
        """Refreshes the venue's cache; what comes back says nothing."""
        kind = r.number("signature_type", 0)
        funder = who.address if kind == 0 else self.funders.get((who.address, kind))
        if funder and self.exchange.hooks is not None:
            self.exchange.hooks.refreshed(self.exchange.account(funder))
        self._balance(r, who)
        return ""

    # ---- notifications ----

    def _note(self, owner: str, kind: int, payload: dict, now_ms: int) -> None:
        self._count += 1
        self._notices.setdefault(owner, deque(maxlen=KEEP_NOTICES)).appendleft(
            {"id": self._count, "type": kind, "owner": owner, "timestamp": now_ms // 1000, "payload": payload})

    def _drop_notices(self, r: Request, who: Credentials):
        gone = set(r.arg("ids").split(","))
        kept = [n for n in self._notices.get(who.api_key, ()) if str(n["id"]) not in gone]
        self._notices[who.api_key] = deque(kept, KEEP_NOTICES)
        return "OK"

    def cancelled(self, order: Order, now_ms: int) -> None:
        """An order of ours was cancelled."""
        self._note(order.owner, N_CANCEL, _order_notice(order, order.px_e4, 0, "", ""), now_ms)

    def traded(self, trade: Trade, now_ms: int) -> None:
        """A trade matched or failed: every owner of one of its orders hears of it."""
        kind = {"MATCHED": N_FILL, "FAILED": N_FILL_FAILED}.get(trade.status)
        if kind is None:
            return
        legs = [(leg.order, leg.px_e4, leg.size_u6) for leg in trade.legs if leg.order is not None]
        if trade.taker is not None:
            legs.append((trade.taker, trade.px_e4, trade.size_u6))
        for order, px_e4, size_u6 in legs:
            self._note(order.owner, kind, _order_notice(order, px_e4, size_u6, trade.id, trade.tx), now_ms)

    def resolved(self, market: Market, now_ms: int) -> None:
        """A market has an outcome: those who hold its tokens hear of it."""
        for account in self.exchange.accounts.values():
            if any(account.shares.get(market.tokens[o]) for o in (UP, DOWN)):
                eoa = self.wallets.get(account.address.lower(), account.address)
                for owner in self.keys.of(eoa)[:1]:
                    self._note(owner, N_RESOLVED, wire.rest_market(market), now_ms)


def _order_notice(order: Order, px_e4: int, filled_u6: int, trade_id: str, tx: str) -> dict:
    return {"asset_id": order.token, "market": order.market.condition_id, "order_id": order.id, "side": SIDES[order.side],
            "type": order.order_type, "price": wire.PX_TEXT[px_e4], "original_size": u6_text(order.original_u6),
            "matched_size": u6_text(filled_u6 or order.matched_u6), "remaining_size": u6_text(max(0, order.left_u6)),
            "outcome": wire.OUTCOMES[order.outcome], "outcome_index": order.outcome, "transaction_hash": tx, "trade_id": trade_id,
            "question": "Bitcoin Up or Down", "market_slug": order.market.spec.slug, "icon": "", "image": "",
            "eventSlug": order.market.spec.slug, "seriesSlug": ""}
