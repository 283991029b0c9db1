// The official JavaScript client, unmodified, through one full session against the exchange simulator.
//
// Input: one JSON object as the first argument (urls, key, tokens, condition id). Output: one JSON line per step, {"step", ...facts};
// the test that starts this judges them. An exception ends the process with its text on stderr and a code other than 0.

import { AssetType, Chain, ClobClient, OrderType, Side } from "@polymarket/clob-client-v2";
import { createWalletClient, http } from "viem";
import { privateKeyToAccount } from "viem/accounts";
import { polygon } from "viem/chains";
import WebSocket from "ws";

const at = JSON.parse(process.argv[2]);
const say = (step, facts) => console.log(JSON.stringify({ step, ...facts }));
const GRID = { tickSize: "0.01", negRisk: false };
const pause = (ms) => new Promise((done) => setTimeout(done, ms));

function client(key, more = {}) {
  const signer = createWalletClient({ account: privateKeyToAccount(key), chain: polygon, transport: http("http://127.0.0.1:1") });
  return new ClobClient({ host: at.clob, chain: Chain.POLYGON, signer, ...more });
}

async function listen(path, subscribe) {
  const socket = new WebSocket(`${at.ws}${path}`);
  const frames = [];
  socket.on("message", (data) => {
    const text = data.toString();
    if (text === "PONG") frames.push("PONG");
    else for (const event of [JSON.parse(text)].flat()) frames.push(event);
  });
  await new Promise((done, fail) => { socket.on("open", done); socket.on("error", fail); });
  socket.send(JSON.stringify(subscribe));
  socket.send("PING");
  return { socket, frames };
}

async function until(frames, wanted) {
  for (let i = 0; i < 200; i++) {
    if (frames.some(wanted)) return;
    await pause(20);
  }
  throw new Error(`a frame never came; seen: ${JSON.stringify(frames.map((f) => f.event_type ?? f))}`);
}

// keys: create, then derive the same ones
const bare = client(at.key);
const created = await bare.createApiKey();
const creds = await bare.deriveApiKey();
say("keys", { same: created.key === creds.key && created.secret === creds.secret, again: (await bare.createApiKey()).key ?? null });
const me = client(at.key, { creds });
const readonly = await me.createReadonlyApiKey();
say("more keys", {
  listed: (await me.getApiKeys()).apiKeys.length, readonly: (await me.getReadonlyApiKeys()).includes(readonly.apiKey),
  dropped: await me.deleteReadonlyApiKey(readonly.apiKey), left: await me.getReadonlyApiKeys(), closedOnly: await me.getClosedOnlyMode(),
});

// market data
const book = await me.getOrderBook(at.up);
say("market", {
  ok: await me.getOk(), version: await me.getVersion(), time: await me.getServerTime(), tick: await me.getTickSize(at.up),
  negRisk: await me.getNegRisk(at.up), info: (await me.getClobMarketInfo(at.condition)).t.length, bestBid: book.bids.at(-1).price,
  hash: book.hash, ownHash: await me.getOrderBookHash(book), mid: await me.getMidpoint(at.up), buy: await me.getPrice(at.up, "BUY"),
  sell: await me.getPrice(at.up, "SELL"), spread: await me.getSpread(at.up), books: (await me.getOrderBooks([{ token_id: at.up }, { token_id: at.down }])).length,
  long: (await me.getMarket(at.condition)).minimum_tick_size, history: (await me.getPricesHistory({ market: at.up, interval: "1h" })).history.length,
  none: (await me.getOrderBook("1234")).error,
});

// streams
const market = await listen("/market", { type: "market", assets_ids: [at.up, at.down], custom_feature_enabled: true });
const user = await listen("/user", { type: "user", auth: { apiKey: creds.key, secret: creds.secret, passphrase: creds.passphrase } });
await until(market.frames, (f) => f.event_type === "book");

// place: one, a batch, and what must be refused
const limit = (price, size, tokenID = at.up) => me.createOrder({ tokenID, price, size, side: Side.BUY }, GRID);
const first = await limit(0.45, 7);
const placed = await me.postOrder(first, OrderType.GTC, true);
const batch = await me.postOrders([
  { order: await limit(0.41, 5), orderType: OrderType.GTC }, { order: await limit(0.60, 5), orderType: OrderType.GTC },
  { order: await limit(0.43, 5), orderType: OrderType.GTC }, { order: await limit(0.42, 6, at.down), orderType: OrderType.GTC },
], true);
say("placed", { one: placed, batch });
const fine = { tickSize: "0.001", negRisk: false };
const learnt = me.tickSizes[at.up];
me.tickSizes[at.up] = "0.001";      // a stale belief about the grid; the client refuses by itself what it knows to be wrong
const offGrid = await me.createOrder({ tokenID: at.up, price: 0.455, size: 7, side: Side.BUY }, fine);
me.tickSizes[at.up] = learnt;
say("refused", {
  duplicate: await me.postOrder(first, OrderType.GTC, true), crosses: await me.postOrder(await limit(0.60, 5), OrderType.GTC, true),
  small: await me.postOrder(await limit(0.45, 4), OrderType.GTC, true),
  tick: await me.postOrder(offGrid, OrderType.GTC, true),
  version: await me.postOrder(await me.createOrder({ tokenID: at.up, price: 0.44, size: 7, side: Side.BUY }, { tickSize: "0.01", negRisk: true }), OrderType.GTC, true),
});
await until(user.frames, (f) => f.type === "PLACEMENT" && f.id === placed.orderID);
await until(market.frames, (f) => f.event_type === "price_change" && f.price_changes.some((c) => c.price === "0.45" && c.size === "7"));

// be filled: another wallet buys the other token against our best bid
const maker = await me.postOrder(await limit(0.51, 10), OrderType.GTC, true);
const rival = client(at.rival);
const rivalKeys = await rival.createOrDeriveApiKey();
const taker = client(at.rival, { creds: rivalKeys });
const bought = await taker.postOrder(await taker.createMarketOrder(
  { tokenID: at.down, price: 0.49, amount: 4.9, side: Side.BUY, orderType: OrderType.FOK }, GRID), OrderType.FOK);
await until(user.frames, (f) => f.event_type === "trade" && f.status === "CONFIRMED");
await until(market.frames, (f) => f.event_type === "last_trade_price");
const trades = await me.getTrades({ market: at.condition });
say("filled", { maker: maker.orderID, bought, trades, page: await me.getTradesPaginated({ id: trades[0].id }) });

// read and cancel: one, a list, the market, all
const listed = await me.getOpenOrders();
say("orders", { listed: listed.map((o) => [o.id, o.price, o.size_matched]), one: await me.getOrder(placed.orderID) });
say("cancels", {
  one: await me.cancelOrder({ orderID: placed.orderID }), again: await me.cancelOrder({ orderID: placed.orderID }),
  list: await me.cancelOrders([batch[0].orderID]), market: await me.cancelMarketOrders({ asset_id: at.down }), all: await me.cancelAll(),
  left: (await me.getOpenOrders()).length,
});

// money, heartbeats, the rest
const beat = await me.postHeartbeat("");
const next = await me.postHeartbeat(beat.heartbeat_id);
say("account", {
  cash: await me.getBalanceAllowance({ asset_type: AssetType.COLLATERAL }), shares: await me.getBalanceAllowance({ asset_type: AssetType.CONDITIONAL, token_id: at.up }),
  chained: next.heartbeat_id !== beat.heartbeat_id, stale: await me.postHeartbeat("stale"), expected: next.heartbeat_id,
  notices: (await me.getNotifications()).map((n) => n.type), scoring: await me.isOrderScoring({ order_id: placed.orderID }),
  percentages: await me.getRewardPercentages(), rewards: await me.getCurrentRewards(),
});
await me.dropNotifications({ ids: (await me.getNotifications()).map((n) => String(n.id)) });
say("frames", {
  market: [...new Set(market.frames.map((f) => f.event_type ?? f))].sort(), user: user.frames.filter((f) => f !== "PONG").map((f) => f.type === "TRADE" ? f.status : f.type),
  notices: (await me.getNotifications()).length,
});
say("keys gone", { dropped: await me.deleteApiKey(), after: (await me.getOpenOrders().catch((e) => ({ error: e.message }))).error });
market.socket.close();
user.socket.close();
