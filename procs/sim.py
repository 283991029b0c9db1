"""Process `sim`: the exchange of paper mode, on loopback sockets. Wiring only."""

from mmbot.actor import Actor, run_async
from mmbot.sim import server


async def main(actor: Actor) -> None:
    """Serve until told to stop; clock and ledger live in the run directory, so a restart continues the same market."""
    await server.run(actor.cfg, actor.stopped, lambda about: actor.log.info("exchange ready: {}", about["clob_url"]),
                     directory=actor.cfg.run.path)


if __name__ == "__main__":
    run_async("sim", main)
