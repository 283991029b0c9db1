"""Settings: one TOML file plus MMBOT_* environment variables, validated once, frozen.

Owns: every key the bot understands, its default, range and unit. Unknown or ill-typed keys are errors that name the key and
the nearest valid one. Secrets are SecretStr: they do not print. Environment: MMBOT_SECTION__KEY (for example
MMBOT_ACCOUNT__PRIVATE_KEY) beats the file.
"""

import difflib
import os
import tomllib
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from mmbot.config_strategy import Section, Strategy, explained, known
from mmbot.errors import UserError

PRESETS = Path(__file__).parent / "presets"


class Run(Section):
    """Which instance this is and where its files go."""
    name: str = Field("paper", pattern=r"^[a-z0-9_-]{1,24}$", description="names the shared memory and the run directory")
    dir: Path = Field(Path("var"), description="parent of the run directory <dir>/<name>")
    restart_budget: int = Field(5, ge=0, description="a process that dies is started again; more often than this within restart_window_s, and it stays down; 0: no limit")
    restart_window_s: float = Field(600.0, gt=0)

    @property
    def path(self) -> Path:
        return self.dir.expanduser().absolute() / self.name


class Venue(Section):
    """Endpoints. In paper mode empty ones are filled in from sim.base_port."""
    clob_url: str = ""
    gamma_url: str = ""
    ws_url: str = Field("", description="base of .../market and .../user")
    rtds_url: str = Field("", description="legacy price relay, and the public activity stream")
    polybolt_url: str = Field("", description="price service with sequence numbers, second source of the same prints; empty: not used")
    binance_ws_url: str = ""
    coinbase_ws_url: str = ""
    bybit_ws_url: str = ""
    geoblock_url: str = ""
    relayer_url: str = Field("", description="sends transactions of proxy wallets, safes and deposit wallets; empty: the settler cannot use such a wallet")
    rpc_url: str = Field("", description="JSON-RPC of a chain node: balances and receipts, and transactions of an EOA; empty: nothing is merged or redeemed")
    clock_url: str = Field("", description="paper only: where the exchange serves the tape's clock")
    chain_id: int = 137


class Account(Section):
    """Who trades. Empty in paper mode: the exchange's funded test account is used."""
    private_key: SecretStr = SecretStr("")
    api_key: SecretStr = SecretStr("")
    api_secret: SecretStr = SecretStr("")
    api_passphrase: SecretStr = SecretStr("")
    signature_type: int = Field(0, ge=0, le=3, description="0 EOA, 1 proxy, 2 safe, 3 deposit wallet")
    funder: str = Field("", description="address that holds the money; empty: the key's own address (signature type 0)")
    key_file: Path | None = Field(None, description="file that holds the private key, readable by its owner only")
    keystore: Path | None = Field(None, description="encrypted keystore (Web3 secret storage); asks for its passphrase, or takes it from keystore_passphrase")
    keystore_passphrase: SecretStr = SecretStr("")
    relayer_key: SecretStr = Field(SecretStr(""), description="relayer API key of the key's own address")
    builder_key: SecretStr = Field(SecretStr(""), description="builder API key, another way to use the relayer, with its secret and passphrase")
    builder_secret: SecretStr = SecretStr("")
    builder_passphrase: SecretStr = SecretStr("")
    address: str = Field("", description="the key's own address; enough for a process that signs no orders, and checked against the key when both are given")


class Markets(Section):
    durations: list[Literal["15m", "5m"]] = Field(["15m"], min_length=1)
    poll_s: float = Field(2.0, gt=0, le=60)
    lead_s: float = Field(60.0, ge=5, le=900, description="announce and pre-subscribe the next window this long before the roll")


class Feeds(Section):
    """Feeds that can be left out: their process is then not started."""
    coinbase: bool = True
    bybit: bool = True


class Books(Section):
    """How the market feed proves its books and tells a quiet stream from a dead one."""
    links: int = Field(2, ge=1, le=4, description="sockets that carry the same market stream")
    hashes_per_s: int = Field(2000, ge=0, description="book hashes recomputed per second at most; 0: none")
    hold_ms: float = Field(250.0, ge=0, le=2000, description="wait so long for frames stamped earlier before a hash is judged")
    quiet_ms: float = Field(400.0, ge=50, description="ask REST for the books after so long without a frame")
    ask_every_ms: float = Field(400.0, ge=100, description="... and again no sooner than this")
    grace_ms: float = Field(250.0, ge=0, description="a newer and different REST book stands so long before the stream is called dead")
    behind_ms: float = Field(800.0, ge=100, description="a socket that misses for so long what another one brings is made anew")
    dead_ms: float = Field(2000.0, ge=200, description="silence for so long without any proof: the socket is made anew")
    rest_timeout_s: float = Field(1.0, gt=0, description="of one REST question")


class Execution(Section):
    dry_run: bool = Field(False, description="recommendations only: quotes are made and written, no order is ever sent, no other program's order is touched")
    min_update_interval_ms: float = Field(250.0, ge=0)
    reprice_ticks: int = Field(1, ge=1)
    resize_fraction: float = Field(0.10, ge=0, le=1)
    orders_per_s: float = Field(40.0, gt=0)
    orders_burst: int = Field(60, gt=0)
    cancels_per_s: float = Field(80.0, gt=0)
    cancels_burst: int = Field(120, gt=0)
    connections: int = Field(4, ge=2, le=16)
    request_timeout_s: float = Field(3.0, gt=0)
    reconcile_s: float = Field(5.0, gt=0)
    pool_radius_ticks: int = Field(3, ge=0, le=20)
    pool_max_age_s: float = Field(20.0, gt=0)
    rehearse_hz: float = Field(200.0, ge=0, le=1000)
    order_deadline_ms: float = Field(1500.0, gt=0, description="an order acknowledged later than this after its decision is cancelled at once")
    deaf_ms: float = Field(1000.0, gt=0, description="an acknowledged order that the user channel has not shown for so long: the channel is deaf")
    difference_s: float = Field(10.0, gt=0, description="stop quoting when our books and the venue's differ for so long without an explanation")
    adopt: Literal["cancel", "keep"] = Field("cancel", description="orders of the account that we did not send: cancel them, or leave and count them")
    unknown_s: float = Field(10.0, gt=0, description="stop quoting when the fate of an order is unknown for so long")
    lost_pause_s: float = Field(2.0, gt=0, description="after a post whose answer is lost: no post for so long; twice as long after each further one ...")
    lost_pause_max_s: float = Field(30.0, gt=0, description="... up to this, until an answer comes")
    error_window_s: float = Field(60.0, gt=0)
    error_rate: float = Field(0.5, gt=0, le=1, description="stop quoting when this share of the posts in the window was refused or lost ...")
    error_min: int = Field(20, ge=1, description="... out of at least so many")
    error_pause_s: float = Field(30.0, gt=0)
    max_loss_u6: int = Field(0, ge=0, description="stop quoting when the result has fallen by this many dollars (1e-6) from its best in the last 24 h; 0: no limit")
    max_loss_share: float = Field(0.0, ge=0, lt=1, description="... or by this share of what the account was worth then; 0: no limit")
    slow_ms: float = Field(500.0, gt=0, description="cancel everything when the venue's round trips take longer than this on average ...")
    fast_ms: float = Field(200.0, gt=0, description="... and quote again below this")
    scoring_s: float = Field(30.0, ge=5, description="with strategy.rewards.enabled: how often the venue is asked which orders score")
    shed_at: float = Field(0.85, gt=0, le=1, description="leave out churn when more than this share of a rate bucket is used")


class Output(Section):
    """Files for other programs: what is wanted now, and how it goes (`mmbot.recommendations`)."""
    dir: Path | None = Field(None, description="where mm_quotes.json and mm_status.json are kept up to date; made when it is missing; unset: nothing is written")
    interval_ms: float = Field(100.0, gt=0, le=60_000, description="how often both are written anew, also when nothing has changed")

    @property
    def path(self) -> Path | None:
        return self.dir.expanduser().absolute() if self.dir is not None else None


class Settlement(Section):
    """Merging full sets into dollars and redeeming what a window paid. The wallet decides the way: a key's own address (account.signature_type 0)
    sends transactions itself, every other wallet has the relayer send them."""
    enabled: bool = True
    pause_merges: bool = Field(False, description="merge nothing; `mmbot merges pause` does the same to a running group")
    merge_min_sets: float = Field(25.0, ge=0.01, description="merge a window's full sets from so many on")
    ops_per_min: int = Field(6, ge=1, le=60, description="merges and redemptions per minute at most")
    gap_s: float = Field(5.0, ge=0, description="least time between two of them")
    poll_s: float = Field(1.0, gt=0, le=60, description="how often positions are looked at, and the operation under way is asked for")
    retry_s: float = Field(30.0, gt=0, description="wait so long after a failure in a window; doubles with each further one, up to 16 times")
    slow_s: float = Field(60.0, gt=0, description="say so when an operation takes longer")
    confirmations: int = Field(3, ge=0, le=256, description="blocks on top of an EOA transaction before it counts; the relayer has its own rule")


class Guardian(Section):
    reserved_cancels: int = Field(40, ge=1, description="cancel tokens that only the guardian may spend")
    max_clock_skew_s: float = Field(5.0, gt=0, description="further off than this: no quoting")
    beat_s: float = Field(1.0, gt=0, le=5)
    unsound_ms: float = Field(400.0, ge=50)
    sound_for_ms: float = Field(500.0, ge=0)
    check_ms: float = Field(25.0, gt=0)


class Sim(Section):
    """The exchange of paper mode."""
    base_port: int = Field(8701, ge=1024, le=65500)
    tape: str = Field("btc15m", description="btc15m (bundled), chainlink-day, or probe")
    tape_dir: Path | None = None
    speed: float = Field(1.0, gt=0, le=200)
    start_before_roll_s: float = Field(45.0, ge=0, le=840)
    seed: int = 1
    frames_per_s: float = Field(200.0, ge=0, le=2000, description="generated deep-level changes per market (one frame covers both tokens)")
    taker_delay_ms: float = Field(150.0, ge=0)
    settle_ms: float = Field(2000.0, ge=0, description="MATCHED to MINED, and again to CONFIRMED")
    cash_u6: int = Field(1_000_000_000, ge=0)
    auto_redeem: bool = Field(False, description="shares of a resolved window turn into dollars by themselves, as the venue's operator does it when approved")
    probe_period_ms: float = Field(300.0, gt=0)
    faults: Path | None = Field(None, description="TOML schedule of faults to inject")
    shuffle_ms: float = Field(0.0, ge=0, le=1000, description="market and user frames come out of order and late by up to this, as the recorded ones did")
    tier: Literal["Standard", "Copper", "Bronze", "Silver", "Gold", "Platinum", "Diamond", "Elite"] = "Standard"
    rewards_per_day: float = Field(0.0, ge=0, description="liquidity reward budget of each market in dollars")
    version: Literal["v1", "v2", "alternate"] = Field("v1", description="protocol of listed markets; alternate: v2 in every second window")


class Cpu(Section):
    pin: bool = True
    keep_awake: bool = True


class Log(Section):
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"


class Settings(BaseSettings):
    """All settings of one instance."""
    model_config = SettingsConfigDict(env_prefix="MMBOT_", env_nested_delimiter="__", extra="forbid", frozen=True,
                                      env_ignore_empty=True)
    profile: Literal["paper", "live"] = "paper"
    run: Run = Run()
    venue: Venue = Venue()
    account: Account = Account()
    markets: Markets = Markets()
    feeds: Feeds = Feeds()
    books: Books = Books()
    strategy: Strategy = Strategy()
    execution: Execution = Execution()
    settlement: Settlement = Settlement()
    output: Output = Output()
    guardian: Guardian = Guardian()
    sim: Sim = Sim()
    cpu: Cpu = Cpu()
    log: Log = Log()

    @classmethod
    def settings_customise_sources(cls, settings_cls, init_settings: PydanticBaseSettingsSource,
                                   env_settings: PydanticBaseSettingsSource, dotenv_settings, file_secret_settings):
        return env_settings, init_settings

    @model_validator(mode="before")
    @classmethod
    def _paper_endpoints(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("profile", "paper") == "paper":
            sim = data.get("sim") or {}
            venue = data.get("venue") or {}
            port = str(sim.get("base_port", Sim().base_port)) if isinstance(sim, dict) else ""
            if port.isdigit() and isinstance(venue, dict):      # else the field's own validator says what is wrong
                data["venue"] = {**paper_endpoints(int(port)), **venue}
        return data


def paper_endpoints(base_port: int) -> dict[str, str]:
    """The exchange simulator's endpoints: CLOB REST, Gamma, CLOB WebSocket, RTDS, Binance, PolyBolt, Coinbase and Bybit on
    eight consecutive ports."""
    host = "127.0.0.1"
    return {
        "clob_url": f"http://{host}:{base_port}", "gamma_url": f"http://{host}:{base_port + 1}",
        "ws_url": f"ws://{host}:{base_port + 2}/ws", "rtds_url": f"ws://{host}:{base_port + 3}",
        "binance_ws_url": f"ws://{host}:{base_port + 4}", "polybolt_url": f"ws://{host}:{base_port + 5}/ws",
        "coinbase_ws_url": f"ws://{host}:{base_port + 6}", "bybit_ws_url": f"ws://{host}:{base_port + 7}/v5/public/spot", "geoblock_url": f"http://{host}:{base_port}/api/geoblock",
        "clock_url": f"http://{host}:{base_port}/sim/clock",
        "relayer_url": f"http://{host}:{base_port}/relayer", "rpc_url": f"http://{host}:{base_port}/rpc",
    }


def known_keys() -> list[str]:
    """Every dotted key a config may hold."""
    return known(Settings)


def _env_unknown() -> list[str]:
    keys = {f"MMBOT_{k.upper().replace('.', '__')}" for k in known_keys()}
    keys |= {"MMBOT_CONFIG", "MMBOT_CACHE", "MMBOT_RUN_DIR", "MMBOT_PYTHON", "MMBOT_AUTOSTART_SIM", "MMBOT_AUTOSTART_FEED_COINBASE", "MMBOT_AUTOSTART_FEED_BYBIT",
             "MMBOT_AUTOSTART_PROGRAMME", "MMBOT_AUTOSTART_OUTPUT"}
    keys |= {"MMBOT_KILL_ROUNDS", "MMBOT_KILL_RUNS", "MMBOT_KILL_SEED", "MMBOT_TORTURE_READS", "MMBOT_TORTURE_KILLS", "MMBOT_PARITY_ORDERS", "MMBOT_CAPTURES", "MMBOT_DATA"}    # what tests take
    bad = [k for k in os.environ if k.startswith("MMBOT_") and k not in keys]
    return [f"environment: unknown variable {k!r}; the nearest valid one is {difflib.get_close_matches(k, keys, 1, 0.0)[0]!r}" for k in bad]


def load(path: str | Path | None = None, **overrides: Any) -> Settings:
    """Settings from a TOML file (default: $MMBOT_CONFIG, else the paper preset), the environment, and keyword overrides.

    ``overrides``: dotted keys with ``__`` for the dot, as ``sim__speed=4``; they beat the file, the environment beats them.
    Errors: UserError naming the file, the key and the nearest valid key.
    """
    path = Path(path or os.environ.get("MMBOT_CONFIG") or PRESETS / "paper.toml")
    if not path.exists() and (PRESETS / f"{path}.toml").exists():
        path = PRESETS / f"{path}.toml"
    try:
        data = tomllib.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"config file {path} does not exist (presets: {', '.join(sorted(p.stem for p in PRESETS.glob('*.toml')))})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, OSError) as e:
        raise UserError(f"config file {path}: {e}") from None
    for key, value in overrides.items():
        section, _, name = key.rpartition("__")
        if section:
            data.setdefault(section, {})[name] = value
        else:
            data[name] = value
    if bad := _env_unknown():
        raise UserError("\n".join(bad))
    try:
        return Settings(**data)
    except ValidationError as e:
        raise UserError("\n".join(f"{path}: {line}" for line in explained(e, model=Settings))) from None
