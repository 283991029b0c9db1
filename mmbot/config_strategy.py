"""The [strategy] table: every number the core trades with, its default, range and unit.

Owns: the keys; their names and order are those of shm_layout.records.PARAMS and its nested records. `for_15m` and `for_5m` hold what differs for windows of one
length. Nothing here is read by the core itself: `mmbot.params` makes the block of it. Values are judged alone and together: a combination that cannot be meant
(a least above its most, an exit before its entry) is an error that names the keys, in a file, in an override and in `mmbot params set` alike.
Sources of defaults: the strategy documents, and the public implementation of the pair strategy.
"""

import difflib
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from shm_layout import records as r


WINDOWS = {900: "for_15m", 300: "for_5m"}
#: Keys whose value is one for all windows: the core uses them for what windows have in common (`mmbot.core.inputs`, `share` of `mmbot.core.decide`), and the
#: executor for its limit over all of them. They cannot stand in `for_15m` or `for_5m`.
SHARED = (
    "max_exposure_u6", "stale_oracle_ns", "stale_spot_ns", "stale_spot_scale", "half_life_var_s", "half_life_drift_s", "drift_clamp", "var_ref", "var_floor",
    "warmup_ns", "witness_oracle_ns", "witness_move", "spot_disagree", "oracle_disagree", "capital.latency_kill_ns", "capital.latency_resume_ns",
    "model.half_life_short_s", "model.half_life_long_s", "model.long_weight", "model.print_lag_ms", "model.half_life_basis_s",
    "signals.ema_fast_s", "signals.ema_slow_s", "signals.std_window_s",
    "capital.latency_kill_ns", "capital.latency_resume_ns",
)


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


def _ordered(section: Section, *names: str, strictly: bool = False) -> None:
    """ValueError when the values of these keys do not ascend (``strictly``: equal ones neither)."""
    for low, high in zip(names, names[1:], strict=False):
        a, b = getattr(section, low), getattr(section, high)
        if a > b or (strictly and a == b):
            raise ValueError(f"{low} ({a:g}) must be {'below' if strictly else 'at most'} {high} ({b:g})")


#: a factor of a spread
Factor = Annotated[float, Field(gt=0, le=10)]


class Model(Section):
    """Fair value and volatility."""
    pricer: Literal[r.PRICERS] = Field("twap", description="twap: what settles; spot: Phi of the spot return (document 1); binary: option with implied_vol (document 3)")
    blend: Literal[r.BLENDS] = Field("logit", description="how model and market mid are mixed by model_weight: as prices, or as logits")
    half_life_short_s: float = Field(60.0, gt=0, description="of the short volatility, a signal")
    half_life_long_s: float = Field(86_400.0, gt=0, description="of the baseline volatility")
    long_weight: float = Field(0.25, ge=0, le=1, description="weight of the baseline in the variance that prices, beside the one of half_life_var_s")
    tail_dof: int = Field(6, ge=0, le=30, description="degrees of freedom of Student's t, 3 or more; 0: normal")
    implied_vol: float = Field(0.5, gt=0, le=5, description="per year, for the pricer binary")
    twap_lag_s: int = Field(3, ge=0, le=10, description="a TWAP print averages the 60 s that end so long before its stamp")
    twap_noise: float = Field(1e-5, ge=0, le=0.01, description="standard deviation (ln price) of a TWAP print around the mean of the relayed prints it averages")
    oracle_noise_s: float = Field(1.6e-5, ge=0, le=0.01, description="standard deviation (ln price) that a second of age of the newest print adds to a level carried by a spot venue; grows with the root of the age")
    print_lag_ms: int = Field(1_000, ge=0, le=3_000, description="a Chainlink print shows the spot venues of so long before its stamp")
    half_life_basis_s: float = Field(0.0, ge=0, description="of the basis between a spot venue and Chainlink; 0: the newest print alone tells it, so a lie is over soonest")

    @model_validator(mode="after")
    def _tails_have_a_variance(self):
        if self.tail_dof in (1, 2):
            raise ValueError("tail_dof 1 and 2 have no variance: use 0 (normal) or 3 and more")
        return self

    @model_validator(mode="after")
    def _fits(self):
        _ordered(self, "half_life_short_s", "half_life_long_s", strictly=True)
        return self


class Signals(Section):
    """Signals that every strategy may look at."""
    ema_fast_s: float = Field(10.0, gt=0, description="time constant of the fast average of the price")
    ema_slow_s: float = Field(60.0, gt=0, description="... and of the slow one")
    std_window_s: float = Field(60.0, ge=10, le=300, description="the standard deviation is of the one-second returns of so long, whole seconds")
    anchor_s: float = Field(60.0, gt=0, le=300, description="the anchor return is over so long")
    micro_levels: int = Field(1, ge=1, le=r.TOP_N, description="levels in the micro-price of several levels")
    jump_threshold: float = Field(0.005, gt=0, description="|micro - mid| / mid that pauses quoting; thin books exceed it all the time: raise it for ticks of a cent")
    jump_pause_ns: int = Field(0, ge=0, description="... for so long; 0: the filter is off (document 2 pauses 5 s)")
    spike_move: float = Field(0.002, gt=0, description="|ln return| over 1 s that counts as a volatility spike")
    spike_ratio: float = Field(2.0, gt=1, description="... or short volatility over the baseline")
    spike_pause_ns: int = Field(0, ge=0, description="quotes are pulled for so long after a spike; 0: off (document 3 pulls 5 s)")
    trend_ratio: float = Field(1.5, gt=1, description="variance ratio above which the regime is trending")
    revert_ratio: float = Field(0.67, gt=0, lt=1, description="... below which it is mean-reverting")
    volatile_ratio: float = Field(2.0, gt=1, description="short volatility over the baseline that counts as volatile")
    vpin_bucket_u6: int = Field(200_000_000, gt=0, description="shares traded that fill a bucket")
    vpin_buckets: int = Field(16, ge=2, le=64, description="buckets in the mean")
    toxic_vpin: float = Field(0.8, gt=0, le=1, description="mean imbalance of the buckets above which flow is toxic")
    toxic_fills: int = Field(3, ge=2, le=64, description="consecutive own fills on the same side ...")
    toxic_window_ns: int = Field(10_000_000_000, gt=0, description="... within so long are toxic flow")
    toxic_for_ns: int = Field(300_000_000_000, ge=0, description="... until so long after the last of them")
    mid_at: float = Field(0.2, gt=0, lt=1, description="part of the window after which its middle begins")
    late_at: float = Field(0.75, gt=0, lt=1)
    final_s: float = Field(60.0, ge=0)
    gamma_danger: float = Field(0.0, ge=0, description="change of the price of Up per basis point of Bitcoin that is too much to quote; 0: off")
    momentum_s: float = Field(10.0, gt=0, le=300, description="momentum is the return over so long ...")
    momentum_scale: float = Field(0.0005, gt=0, description="... in parts of this |ln return|, at most 1")

    @model_validator(mode="after")
    def _fits(self):
        _ordered(self, "ema_fast_s", "ema_slow_s", strictly=True)
        _ordered(self, "mid_at", "late_at", strictly=True)
        _ordered(self, "revert_ratio", "trend_ratio", strictly=True)
        return self


class Tiered(Section):
    """Document 3."""
    base_spread: float = Field(0.02, gt=0, lt=1)
    min_spread: float = Field(0.01, gt=0, lt=1)
    max_spread: float = Field(0.10, gt=0, lt=1)
    inventory_skew: float = Field(0.001, ge=0, le=0.1, description="dollars per share of imbalance")
    momentum_skew: float = Field(0.005, ge=0, le=0.1)
    max_position_u6: int = Field(1_000_000_000, ge=0)
    max_imbalance_u6: int = Field(500_000_000, ge=0)
    tier_size_u6: tuple[int, int, int, int] = (50_000_000, 100_000_000, 200_000_000, 500_000_000)
    tier_spread: tuple[float, float, float, float] = (0.01, 0.02, 0.03, 0.05)
    widen_toxicity: float = Field(0.6, gt=0, le=1)
    medium_toxicity: float = Field(0.4, gt=0, le=1)
    extreme_toxicity: float = Field(0.85, gt=0, le=1)
    widen_factor: float = Field(1.5, ge=1)
    one_sided_momentum: float = Field(0.5, ge=0, le=1, description="|momentum| from which, with medium toxicity, only one side is quoted")
    time_cap: float = Field(2.0, ge=1, description="greatest factor for the time that is left")
    regime_factor: tuple[Factor, Factor, Factor, Factor] = Field((1.0, 1.25, 0.9, 1.5), description="unknown, trending, mean-reverting, volatile")
    toxicity_weight: float = Field(1.0, ge=0, description="factor 1 + weight * toxicity")
    vol_cap: float = Field(2.0, ge=1, description="greatest factor for short volatility over the baseline")
    phase_factor: tuple[Factor, Factor, Factor, Factor, Factor] = Field((1.2, 1.1, 1.0, 1.2, 2.0), description="ahead, open, mid, late, final")

    @model_validator(mode="after")
    def _fits(self):
        _ordered(self, "min_spread", "base_spread", "max_spread")
        _ordered(self, "medium_toxicity", "widen_toxicity", "extreme_toxicity")
        if min(self.tier_size_u6) < 0 or min(self.tier_spread) <= 0 or max(self.tier_spread) >= 1:
            raise ValueError("tier_size_u6 must not be negative, tier_spread must lie between 0 and 1")
        if list(self.tier_spread) != sorted(self.tier_spread):
            raise ValueError(f"tier_spread {list(self.tier_spread)} must ascend: outer tiers are further away")
        return self


class Avellaneda(Section):
    """Document 2."""
    form: Literal["target", "optimal", "glft"] = "target"
    gamma: float = Field(0.2, gt=0)
    gamma_cap: float = Field(3.0, ge=1, description="times gamma")
    vol_ratio_ref: float = Field(1.0, gt=0, description="ratio of volatilities that doubles gamma")
    toxic_factor: float = Field(1.5, ge=1)
    target_spread: float = Field(0.015, gt=0, lt=1)
    k: float = Field(100.0, gt=0, description="decay of the fill intensity per dollar of distance")
    a: float = Field(0.5, gt=0, description="fill intensity at no distance, per second")
    unit_u6: int = Field(100_000_000, gt=0, description="shares that count as 1 in q: gamma is risk aversion per dollar and so many shares")
    max_inventory_u6: int = Field(100_000_000, gt=0, description="imbalance at which the heavy side is no longer quoted")


class Reversion(Section):
    """Document 0."""
    enter_min: float = Field(0.01, gt=0, lt=1)
    enter_spreads: float = Field(2.0, ge=0)
    exit_min: float = Field(0.005, gt=0, lt=1)
    exit_spreads: float = Field(1.0, ge=0)
    max_legs: int = Field(3, ge=1, le=10)
    bankroll_part: float = Field(0.01, gt=0, le=0.02, description="of the bankroll, most that one side of a market may cost")
    taking: bool = Field(False, description="true: FAK within max_pay_slippage; false: maker, replaced every replace_ns")
    max_pay_slippage: float = Field(0.01, ge=0, lt=0.5)
    replace_ns: int = Field(1_000_000_000, gt=0)
    divergence: float = Field(0.15, gt=0, lt=1, description="|expected - market| beyond which the model is not believed")
    flip_pause_ns: int = Field(5_000_000_000, ge=0)
    fit_id: int = Field(0, ge=0, description="first 48 bits of the SHA-256 of the fit that made beta; 0: not fitted")
    beta: tuple[float, float, float, float, float] = (0.0, 0.0, 0.0, 0.0, 0.0)

    @model_validator(mode="after")
    def _fits(self):
        _ordered(self, "exit_min", "enter_min", strictly=True)
        if self.exit_spreads > 0 or self.enter_spreads > 0:
            _ordered(self, "exit_spreads", "enter_spreads", strictly=True)
        return self


class Programme(Section):
    """Document 4; the programme is stated in mmbot/quoting/programme.py."""
    alpha: float = Field(1.0, ge=0, le=10, description="inventory risk: base spreads by which a full inventory wants the quotes' centre moved")
    beta: float = Field(1.0, gt=0, le=10, description="cost of a quote's distance from the fair value; below 0.5 a quote may cross it to shed inventory")
    gamma: float = Field(0.25, ge=0, le=10, description="weight of volatility (dollars of Up per square root of a second) in the base spread")
    delta: float = Field(0.02, ge=0, le=1, description="dollars that no liquidity at the best prices adds to the base spread")
    zeta: float = Field(0.02, ge=0, le=1, description="dollars that an empty book adds to the base spread")
    max_inventory_u6: int = Field(100_000_000, gt=0)
    default_spread: float = Field(0.03, gt=0, lt=1)
    min_spread: float = Field(0.01, gt=0, lt=1)
    max_spread: float = Field(0.10, gt=0, lt=1)
    slow_ns: int = Field(1_000_000_000, gt=0)
    fast_ns: int = Field(100_000_000, gt=0)
    valid_ns: int = Field(5_000_000_000, gt=0, description="a solution older than this is replaced by the default spread")

    @model_validator(mode="after")
    def _fits(self):
        _ordered(self, "min_spread", "default_spread", "max_spread")
        _ordered(self, "fast_ns", "slow_ns", "valid_ns")
        return self


class Completion(Section):
    """Completing an unpaired position by taking (document 1)."""
    enabled: bool = False
    min_unpaired_u6: int = Field(5_000_000, gt=0)
    from_s: float = Field(180.0, ge=0, description="this long before the cut-off completion may begin")
    max_pay: float = Field(1.0, gt=0, le=1.1, description="most dollars for the pair, fee included, when completion begins ...")
    max_pay_late: float = Field(1.02, gt=0, le=1.1, description="... and at the cut-off")
    risk_aversion: float = Field(0.002, ge=0, le=1, description="dollars that a squared dollar of variance is worth, when completion is weighed against holding")
    all_or_nothing: bool = Field(False, description="true: FOK; false: FAK, a part is welcome")
    pause_ns: int = Field(2_000_000_000, ge=500_000_000, description="between two attempts")

    @model_validator(mode="after")
    def _fits(self):
        _ordered(self, "max_pay", "max_pay_late")
        return self


class Capital(Section):
    """Capital and breakers (documents 0 and 2)."""
    bankroll_u6: int = Field(0, ge=0, description="1e-6 dollars; 0: the account's cash and its positions at cost")
    mm_part: float = Field(0.78, ge=0, le=1, description="of the bankroll for making markets; the parts sum to 1 at most")
    arb_part: float = Field(0.20, ge=0, le=1)
    reserve_part: float = Field(0.02, ge=0, le=1)
    markets: int = Field(5, ge=1, description="that share the market making part")
    kelly_floor: float = Field(0.05, ge=0, le=1, description="sizing capital: Kelly's part is held within kelly_floor ...")
    kelly_cap: float = Field(0.15, gt=0, le=1, description="... and kelly_cap of the market making part")
    side_part: float = Field(0.0, ge=0, le=1, description="most of the bankroll that one side of one market may cost (document 0: 0.01 to 0.02); 0: no cap")
    max_market_exposure_u6: int = Field(0, ge=0, description="most dollars (1e-6) that may be lost in one market; 0: only the cap on all of them")
    sizing: Literal["fixed", "capital"] = Field("fixed", description="fixed: base_size_u6; capital: what the market's share of the bankroll buys")
    merge_cost: float = Field(0.0005, ge=0, le=0.1, description="dollars a share that bidding for the other outcome and merging costs besides the price ...")
    sell_cost: float = Field(0.001, ge=0, le=0.1, description="... and that selling costs; the lower one is used for shares in hand")
    latency_kill_ns: int = Field(0, ge=0, description="no quotes when PINGs of the market channel take longer than this on average; 0: off (document 2: 500 ms) ...")
    latency_resume_ns: int = Field(200_000_000, gt=0, description="... until they take less than this")

    @model_validator(mode="after")
    def _fits(self):
        if (parts := self.mm_part + self.arb_part + self.reserve_part) > 1 + 1e-9:
            raise ValueError(f"mm_part + arb_part + reserve_part are {parts:g}, more than the whole (1)")
        _ordered(self, "kelly_floor", "kelly_cap")
        if self.latency_kill_ns > 0:
            _ordered(self, "latency_resume_ns", "latency_kill_ns", strictly=True)
        return self


class Rewards(Section):
    """Liquidity rewards (document 1): nudge quotes toward scoring, never beyond a risk limit. Only worth it where a market has a budget."""
    enabled: bool = False
    min_size_u6: int = Field(50_000_000, gt=0, description="smallest order that scores (rewardsMinSize)")
    max_spread: float = Field(0.045, gt=0, lt=0.5, description="greatest distance from the middle that scores, dollars (rewardsMaxSpread)")
    one_sided: float = Field(3.0, ge=1, description="quotes on one side alone count by this part")


class Strategy(Section):
    """Parameters of the core: names and order are those of shm_layout.records.PARAMS."""
    strategy: Literal[r.STRATEGIES] = Field("pair", description="which strategy draws the quotes")
    target_total: float = Field(0.992, gt=0.5, lt=1)
    target_total_min: float = Field(0.98, gt=0.5, lt=1)
    target_total_max: float = Field(0.995, gt=0.5, lt=1)
    levels: int = Field(2, ge=1, le=4)
    level_step_ticks: int = Field(1, ge=1, le=10)
    base_size_u6: int = Field(20_000_000, ge=0)
    next_size_u6: int = Field(10_000_000, ge=0)
    size_decay: float = Field(0.6, gt=0, le=1)
    model_weight: float = Field(0.3, ge=0, le=1, description="fair = w * model + (1-w) * market mid")
    skew_per_share: float = Field(0.0002, ge=0, le=0.1)
    skew_max: float = Field(0.05, ge=0, le=0.5)
    severe_imbalance_u6: int = Field(60_000_000, ge=0)
    max_imbalance_u6: int = Field(120_000_000, ge=0)
    max_exposure_u6: int = Field(150_000_000, ge=0)
    cutoff_s: float = Field(60.0, ge=0)
    next_lead_s: float = Field(60.0, ge=0, description="quote the next window this long before it starts")
    stale_market_ns: int = Field(750_000_000, gt=0)
    stale_oracle_ns: int = Field(5_000_000_000, gt=0)
    stale_spot_ns: int = Field(1_500_000_000, gt=0)
    stale_spot_scale: float = Field(0.7, ge=0, le=1)
    half_life_var_s: float = Field(300.0, gt=0, description="of the variance that prices (document 1 says 30 s: too noisy to price a quarter of an hour)")
    half_life_drift_s: float = Field(120.0, gt=0)
    drift_clamp: float = Field(0.0, ge=0)
    var_ref: float = Field(1e-8, gt=0)
    var_floor: float = Field(2.5e-9, gt=0, description="least variance of ln price per second")
    k_vol: float = Field(0.15, ge=0)
    k_spread: float = Field(0.10, ge=0)
    k_time: float = Field(0.05, ge=0)
    k_fast: float = Field(0.15, ge=0)
    fast_move: float = Field(0.001, gt=0, description="|ln return| over 1 s that counts as fast (10 bps)")
    target_ttl_ns: int = Field(500_000_000, ge=100_000_000, le=5_000_000_000)
    refresh_ns: int = Field(100_000_000, ge=10_000_000)
    warmup_ns: int = Field(300_000_000, ge=0)
    witness_oracle_ns: int = Field(2_500_000_000, gt=0, description="no oracle print for so long while a spot venue moved ...")
    witness_move: float = Field(0.0002, gt=0, description="... by this |ln return| (2 bps) since the last one: the oracle counts as stale at once")
    spot_disagree: float = Field(0.002, gt=0, description="quote smaller when two spot venues' 1 s or 3 s ln returns differ by this (20 bps)")
    oracle_disagree: float = Field(0.0075, gt=0, description="warn when spot and oracle differ by this in ln price (75 bps)")
    model: Model = Model()
    signals: Signals = Signals()
    tiered: Tiered = Tiered()
    avellaneda: Avellaneda = Avellaneda()
    reversion: Reversion = Reversion()
    programme: Programme = Programme()
    completion: Completion = Completion()
    capital: Capital = Capital()
    rewards: Rewards = Rewards()
    for_15m: dict[str, Any] = Field({}, description="what differs for windows of 15 minutes")
    for_5m: dict[str, Any] = Field({}, description="what differs for windows of 5 minutes")

    @model_validator(mode="after")
    def _fits(self):
        _ordered(self, "target_total_min", "target_total", "target_total_max")
        _ordered(self, "refresh_ns", "target_ttl_ns", strictly=True)
        _ordered(self, "severe_imbalance_u6", "max_imbalance_u6")
        _ordered(self, "var_floor", "var_ref")
        return self

    @model_validator(mode="after")
    def _overrides_hold(self):
        for duration_s, name in WINDOWS.items():
            if shared := sorted(keys_of(getattr(self, name)) & set(SHARED)):
                raise ValueError(f"{name}.{shared[0]} cannot differ: {shared[0]} is one for all windows; set strategy.{shared[0]}")
            try:
                own = self.of(duration_s)
            except ValidationError as e:
                raise ValueError("; ".join(explained(e, f"{name}."))) from None
            if own.cutoff_s >= duration_s:
                raise ValueError(f"cutoff_s ({own.cutoff_s:g}) leaves nothing of a window of {duration_s} s; lower it, or set {name}.cutoff_s")
        return self

    def of(self, duration_s: int) -> "Strategy":
        """These parameters with what differs for windows of ``duration_s``. Errors: pydantic's, naming the key."""
        own = getattr(self, WINDOWS[duration_s])
        if not own:
            return self
        return Strategy.model_validate(merged(self.model_dump(exclude=set(WINDOWS.values())), own, set(WINDOWS.values())))


def merged(base: dict, over: dict, refused: set[str] = frozenset()) -> dict:
    """``base`` with the values of ``over``, table by table. Errors: ValueError for a ``refused`` key."""
    out = dict(base)
    for key, value in over.items():
        if key in refused:
            raise ValueError(f"{key} cannot stand inside another of its kind")
        out[key] = merged(out[key], value) if isinstance(value, dict) and isinstance(out.get(key), dict) else value
    return out


def keys_of(table: dict, prefix: str = "") -> set[str]:
    """Dotted keys of a table and its tables."""
    return {key for name, value in table.items() for key in (keys_of(value, f"{prefix}{name}.") if isinstance(value, dict) else {prefix + name})}


def known(model: type[BaseModel], prefix: str = "") -> list[str]:
    """Every dotted key that settings of this model may hold."""
    keys = []
    for name, field in model.model_fields.items():
        keys.append(prefix + name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            keys += known(field.annotation, f"{prefix}{name}.")
    if model is Strategy:
        own = [k.removeprefix(prefix) for k in keys]
        keys += [f"{prefix}{name}.{k}" for name in WINDOWS.values() for k in own if k not in SHARED and k not in WINDOWS.values()]
    return keys


def explained(error: ValidationError, prefix: str = "", model: type[BaseModel] | None = None) -> list[str]:
    """A line for each thing that is wrong: the key, what is wrong with it, the nearest valid key for an unknown one. Secrets are not shown."""
    lines = []
    for e in error.errors():
        key = prefix + ".".join(str(p) for p in e["loc"])
        if e["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, known(model) if model else [prefix + k for k in known(Strategy)], 1, 0.0)
            lines.append(f"unknown key {key!r}; the nearest valid key is {near[0]!r}")
        elif e["type"] == "value_error":
            lines.append(f"{key.rstrip('.')}: {e['ctx']['error']}".removeprefix(": "))
        else:
            shown = "" if key.startswith("account.") else f" (got {e.get('input')!r})"
            lines.append(f"{key}: {e['msg']}{shown}")
    return lines
