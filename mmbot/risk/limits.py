"""What risk leaves of a draft: levels that are too small, off the grid, on the heavy side, dearer than a pair may be, or more than may be lost.

Owns: the last cut, for every strategy alike. Written into the draft by `apply`. Can go wrong: a draft may hold anything; what cannot be quoted gets size 0 and its
gate, so the order of tests below is the order in which a level is refused.
"""

from numba import int64, njit, void

from mmbot.quoting import skew
from mmbot.quoting.rounding import ONE_E4, floor_lot, floor_tick, in_range
from mmbot.quoting.view import DRAFT_T, MAX_LEVELS, PARAMS_T, VIEW_T
from mmbot.risk import capital, exposure, gates
from shm_layout import records as r


@njit(int64(VIEW_T, int64, int64, int64, int64), cache=True)
def worst(view, buy_up_u6, pay_up_u6, buy_down_u6, pay_down_u6):
    """Possible loss of a window with what it holds, trades that may still fail left out where they would help, and the buys given."""
    return exposure.worst_loss(view.cost_u6, view.qty_up_u6 - view.reserve_up_u6, view.qty_down_u6 - view.reserve_down_u6,
                               buy_up_u6, pay_up_u6, buy_down_u6, pay_down_u6)


@njit(int64(VIEW_T, PARAMS_T), cache=True)
def base_size_u6(view, params):
    """Size of the first level when the capital of a market decides: its whole ladder of the cheaper outcome costs that capital (1e-6 shares).

    The dearer outcome's ladder is then cut to the same dollars by `side_room`.
    """
    c = params.capital
    ladder, part = 0.0, 1.0
    for _ in range(min(params.levels, MAX_LEVELS)):
        ladder, part = ladder + part, part * params.size_decay
    dollars_u6 = capital.per_market_u6(capital.part_u6(view.bankroll_u6, c.mm_part), c.markets)
    return floor_lot(capital.shares_for(dollars_u6, min(view.mid, 1.0 - view.mid)) * 1e6 / max(ladder, 1.0))


@njit(int64(VIEW_T, PARAMS_T, int64, int64), cache=True)
def side_room(view, params, token, px_e4):
    """Dollars (1e-6) that bids for ``token`` may cost: what the caps on one side of one market leave over what is held of it, or what balances the position."""
    c, held = params.capital, view.cost_up_u6 if token == r.UP else view.cost_down_u6
    most = capital.NO_CAP
    if c.side_part > 0.0:
        most = int64(view.bankroll_u6 * c.side_part)
    if c.sizing != 0:
        mine = capital.part_u6(view.bankroll_u6, c.mm_part)
        p = view.fair if token == r.UP else 1.0 - view.fair
        kelly_u6 = int64(mine * capital.kelly_part(p, px_e4 * 1e-4, c.kelly_floor, c.kelly_cap))
        most = min(most, capital.per_market_u6(mine, c.markets), kelly_u6)
    missing = -view.imbalance_u6 if token == r.UP else view.imbalance_u6
    balances = exposure.cost_of(px_e4, missing) if missing > 0 else 0
    return max(most - held, balances, 0)


@njit(void(VIEW_T, PARAMS_T, DRAFT_T), cache=True)
def _fit_sides(view, params, draft):
    """Make each side's bids, inner levels first, cost no more than its caps allow."""
    if params.capital.side_part <= 0.0 and params.capital.sizing == 0:
        return
    for token in range(2):
        left = -1
        for level in range(MAX_LEVELS):
            px, size = draft.px_e4[token, level], draft.size_u6[token, level]
            if size <= 0 or px <= 0:
                continue
            if left < 0:
                left = side_room(view, params, token, px)
            fits = floor_lot(left * float(ONE_E4) / px) if left < capital.NO_CAP // 2 else size
            if fits < size:
                draft.size_u6[token, level] = size = fits
                draft.gates |= gates.SIDE_CAP
            left -= exposure.cost_of(px, size)


@njit(int64(VIEW_T, PARAMS_T, DRAFT_T, int64, int64), cache=True)
def _cap_gates(view, params, draft, would, pay):
    """Gates of what may be lost at most, here and over all windows, and of the cash; what adds no risk is welcome even above a cap."""
    market = params.capital.max_market_exposure_u6
    more = would > draft.worst_u6
    return (gates.bit((more and would > view.room_u6) or pay > view.cash_u6, gates.EXPOSURE_CAP)
            | gates.bit(more and market > 0 and would > market, gates.MARKET_CAP))


@njit(int64(VIEW_T, PARAMS_T, DRAFT_T), cache=True)
def _admit_taker(view, params, draft):
    """Cut a taking order that risks too much, remove own bids that it would meet. Returns the dollars that a BUY may cost with its fee, 0 without one.

    A BUY of one outcome at p meets own bids for the other at 1 - p and above, a SELL at p own bids for the same one at p and above.
    """
    if draft.take_size_u6 <= 0:
        return 0
    token, px, size = draft.take_token, draft.take_px_e4, draft.take_size_u6
    sells = draft.take_side == r.SELL
    if in_range(px, view.tick_e4) == 0 or px % view.tick_e4 != 0:
        draft.take_size_u6 = 0
        draft.gates |= gates.PRICE_OUT_OF_RANGE
        return 0
    shares = size if sells else size * ONE_E4 // px         # of a BUY at the worst price
    fee = int64(view.fee_rate * (0.25 ** view.fee_exponent * shares if sells else size)) + 1       # the most, at whatever price within the worst it is matched
    pay = -exposure.cost_of(px, size) + fee if sells else size + fee
    bought = -shares if sells else shares
    up, down = (bought, 0) if token == r.UP else (0, bought)
    pay_up, pay_down = (pay, 0) if token == r.UP else (0, pay)
    would = worst(view, up, pay_up, down, pay_down)
    stop = _cap_gates(view, params, draft, would, pay)
    if stop:
        draft.gates |= stop
        draft.take_size_u6 = 0
        return 0
    draft.worst_u6 = max(draft.worst_u6, would)
    meets, least_e4 = (token, px) if sells else (1 - token, ONE_E4 - px)
    for level in range(MAX_LEVELS):
        if draft.size_u6[meets, level] > 0 and draft.px_e4[meets, level] >= least_e4:
            draft.size_u6[meets, level] = 0
            draft.gates |= gates.PAIR_CAP
    return 0 if sells else pay


@njit(int64(VIEW_T, DRAFT_T, int64, int64, int64, int64), cache=True)
def _level_gates(view, draft, heavy, severity, token, level):
    """Gates that forbid one level by itself, whatever the others are."""
    barred = severity == skew.DROP_ALL or (severity == skew.DROP_FIRST and level == 0)
    return (gates.bit(barred and token == heavy, gates.SEVERE_SKEW)
            | gates.bit(in_range(draft.px_e4[token, level], view.tick_e4) == 0, gates.PRICE_OUT_OF_RANGE)
            | gates.bit(draft.size_u6[token, level] < max(view.min_size_u6, 1), gates.SIZE_BELOW_MIN))


@njit(void(VIEW_T, DRAFT_T), cache=True)
def _stay_maker(view, draft):
    """Keep every level on the grid and under the best ask of its own token, deeper levels under the ones before them."""
    for token in range(2):
        ask_e4 = view.ask_e4 if token == r.UP else ONE_E4 - view.bid_e4
        most_e4 = floor_tick(ask_e4 - view.tick_e4, view.tick_e4)
        for level in range(MAX_LEVELS):
            if draft.size_u6[token, level] > 0:
                px_e4 = min(floor_tick(draft.px_e4[token, level], view.tick_e4), most_e4)
                draft.px_e4[token, level] = px_e4
                most_e4 = px_e4 - view.tick_e4


@njit(void(DRAFT_T, int64), cache=True)
def _keep_pairs_apart(draft, heavy):
    """Own bids for Up and Down must not sum to a dollar: they would match each other. The heavy side gives way."""
    light_e4 = 0
    for level in range(MAX_LEVELS):
        if draft.size_u6[1 - heavy, level] > 0:
            light_e4 = max(light_e4, draft.px_e4[1 - heavy, level])
    for level in range(MAX_LEVELS):
        if draft.size_u6[heavy, level] > 0 and draft.px_e4[heavy, level] + light_e4 >= ONE_E4:
            draft.size_u6[heavy, level] = 0
            draft.gates |= gates.PAIR_CAP


@njit(void(VIEW_T, PARAMS_T, DRAFT_T), cache=True)
def apply(view, params, draft):
    """Cut the draft down: outer levels last and the light side first, as long as risk and cash allow. Sets ``gates`` and ``worst_u6`` of the draft."""
    heavy = r.UP if view.imbalance_u6 > 0 else r.DOWN
    severity = skew.severity(view.imbalance_u6, params.severe_imbalance_u6, params.max_imbalance_u6)
    _stay_maker(view, draft)
    _keep_pairs_apart(draft, heavy)
    _fit_sides(view, params, draft)
    draft.worst_u6 = worst(view, 0, 0, 0, 0)
    taken = _admit_taker(view, params, draft)
    buy_up = buy_down = pay_up = pay_down = 0
    if taken > 0:
        shares = draft.take_size_u6 * ONE_E4 // draft.take_px_e4
        buy_up, buy_down, pay_up, pay_down = (shares, 0, taken, 0) if draft.take_token == r.UP else (0, shares, 0, taken)
    for level in range(MAX_LEVELS):
        for turn in range(2):
            token = 1 - heavy if turn == 0 else heavy
            px, size = draft.px_e4[token, level], draft.size_u6[token, level]
            if size <= 0 and px == 0:
                continue
            stop = _level_gates(view, draft, heavy, severity, token, level)
            pay = exposure.cost_of(px, size)
            up, down = (size, 0) if token == r.UP else (0, size)
            pay_u, pay_d = (pay, 0) if token == r.UP else (0, pay)
            would = worst(view, buy_up + up, pay_up + pay_u, buy_down + down, pay_down + pay_d)
            stop |= _cap_gates(view, params, draft, would, pay_up + pay_down + pay)
            if stop:
                draft.gates |= stop
                draft.size_u6[token, level] = 0
            else:
                buy_up, buy_down, pay_up, pay_down = buy_up + up, buy_down + down, pay_up + pay_u, pay_down + pay_d
                draft.worst_u6 = would
