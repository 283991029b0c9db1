"""One instance of the bot on disk: its run directory, the lock that makes it single, the settings it really runs with.

Owns: <run dir>/mmbot.lock (flock, holds a pid), <run dir>/config.toml (the effective settings without secrets), the log offsets.
Writes: `mmbot up`. Reads: every command, so that `mmbot status` in another terminal speaks about the group that runs and not about
a config file that has changed since.

The lock belongs to the open file, not to a process: `mmbot up` takes it and supervisord inherits the descriptor, so it is held
exactly as long as supervisord lives, and the kernel drops it whatever kills that.
"""

import fcntl
import os
import time
from pathlib import Path

import tomli_w
from pydantic import SecretStr

from mmbot import config, recommendations, topology
from mmbot.errors import UserError

#: a unix socket's path has at most 107 bytes, and supervisord binds "<path>.<its pid>" first
SOCKET_PATH_MAX = 107 - len(".4194304")
#: what a paper run leaves behind; a new start is a new market and a new account (a restart of one process keeps them)
PAPER_STATE = ("sim_clock.json", "sim_ledger.jsonl", "journal/orders.log", "journal/settlement.log", "pause_merges")
SECRETS = tuple(name for name, f in config.Account.model_fields.items() if f.annotation is SecretStr)
#: what is opened once, before the start: no process of the group asks for it again
OPENED = ("key_file", "keystore", "keystore_passphrase")
LOCK_TRIES, LOCK_PAUSE_S = 10, 0.05


class Instance:
    """Paths and lock of the instance that ``cfg`` describes."""

    def __init__(self, cfg: config.Settings):
        self.cfg = cfg
        self.dir: Path = cfg.run.path
        self.lock_path = self.dir / "mmbot.lock"
        self.config_path = self.dir / "config.toml"
        self.socket_path = self.dir / "supervisor.sock"
        self.log_dir = self.dir / "log"

    def prepare(self) -> None:
        """Make the run directory and the one of the output files. UserError when its name is too long for a unix socket or one cannot be written."""
        if (length := len(os.fsencode(self.socket_path))) > SOCKET_PATH_MAX:
            raise UserError(f"run directory {self.dir} is too long: a unix socket in it would have {length} bytes of path, "
                            f"{SOCKET_PATH_MAX} are possible; set run.dir to a shorter one")
        try:
            self.log_dir.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as e:
            raise UserError(f"run directory {self.dir}: {e.strerror}; set run.dir to a directory that can be written") from None
        if self.cfg.output.path is not None:
            recommendations.prepare(self.cfg.output.path)

    def holder(self) -> int | None:
        """Pid written in the lock while somebody holds it (0: held, nothing written yet); None when it is free."""
        try:
            fd = os.open(self.lock_path, os.O_RDONLY)
        except OSError:
            return None
        try:
            fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return None
        except BlockingIOError:
            return int(os.read(fd, 32).split(b"\n")[0] or 0)
        finally:
            os.close(fd)

    def lock(self) -> int:
        """Take the lock; returns its descriptor, to be inherited by supervisord. UserError naming the pid that holds it."""
        fd = os.open(self.lock_path, os.O_RDWR | os.O_CREAT, 0o600)
        for _ in range(LOCK_TRIES):     # `mmbot status` looks at the lock for an instant by sharing it
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                write_pid(fd, os.getpid())
                return fd
            except BlockingIOError:
                time.sleep(LOCK_PAUSE_S)
        os.close(fd)
        raise UserError(f"{self.cfg.run.name} is running already: pid {self.holder() or 'unknown'} holds {self.lock_path}; "
                        "stop it with `mmbot down`, or give this one another run.name")

    def log_sizes(self) -> dict[str, int]:
        """Size of each log file now, bytes: what comes later is this start's."""
        return {p.name: p.stat().st_size for p in self.log_dir.glob("*.log")}

    def log_tail(self, name: str, lines: int, since: dict[str, int]) -> list[str]:
        """Last lines of a process's log written after ``since`` (`log_sizes`)."""
        try:
            with open(self.log_dir / f"{name}.log", "rb") as f:
                f.seek(since.get(f"{name}.log", 0))
                text = f.read().decode(errors="replace")
        except OSError:
            return []
        return [line for line in text.splitlines() if line.strip()][-lines:]

    def save_config(self) -> None:
        """Write the effective settings, all but the secrets and where they lie: those travel in the environment only."""
        data = self.cfg.model_dump(mode="json", exclude={"account": {*SECRETS, *OPENED}}, exclude_none=True)
        data["run"]["dir"] = str(self.dir.parent)
        text = f"# what `mmbot up` started with; written anew at each start\n{tomli_w.dumps(data)}"
        fd = os.open(self.config_path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as f:
            f.write(text)

    def forget_paper(self) -> None:
        """Remove market and account of an earlier paper run. Live: nothing, the order journal must survive."""
        if self.cfg.profile == "paper":
            for name in PAPER_STATE:
                (self.dir / name).unlink(missing_ok=True)

    def environment(self, python: str) -> dict[str, str]:
        """Environment of supervisord: the paths, and the account's secrets if the config holds them (without the way to the keystore).

        Each process gets of it what supervisor.conf leaves it: the private key goes to executor and settler, the relayer's keys to the settler alone.
        """
        hidden = {f"MMBOT_ACCOUNT__{key.upper()}" for key in OPENED}
        env = {k: v for k, v in os.environ.items() if k not in hidden}
        for key in SECRETS:
            text = getattr(self.cfg.account, key).get_secret_value()
            if text and key not in OPENED:
                env[f"MMBOT_ACCOUNT__{key.upper()}"] = text
        running = {p.name for p in topology.processes(self.cfg.profile, self.cfg)}
        start = {f"MMBOT_AUTOSTART_{p.name.upper()}": str(p.name in running).lower() for p in topology.PROCESSES if p.optional}
        return env | start | {"MMBOT_CONFIG": str(self.config_path), "MMBOT_RUN_DIR": str(self.dir), "MMBOT_PYTHON": python,
                              "PYTHONSAFEPATH": "1"}      # no module is taken from the working directory


def write_pid(fd: int, pid: int) -> None:
    """Make ``pid`` the whole content of the lock file."""
    os.ftruncate(fd, 0)
    os.pwrite(fd, f"{pid}\n".encode(), 0)


def adopt(cfg: config.Settings) -> config.Settings:
    """The settings of the running group when there is one (with this terminal's account), else ``cfg`` unchanged."""
    instance = Instance(cfg)
    if instance.holder() is None or not instance.config_path.exists():
        return cfg
    return config.load(instance.config_path, account=cfg.account)
