"""Recommendations only, end to end: real processes make quotes and write them, and the exchange never sees an order."""

import json
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from mmbot.ops.view import View

sys.path.insert(0, str(Path(__file__).parent))
from running import Running, free_ports, wait_for  # noqa: E402

pytestmark = pytest.mark.timeout(300)


def test_quotes_are_written_and_no_order_is_sent(tmp_path):
    out = tmp_path / "made" / "by the bot"
    group = Running(tmp_path, f"d{uuid.uuid4().hex[:6]}", free_ports(), before_roll_s=5, deadline_s=240, env={"MMBOT_OUTPUT__DIR": str(out)}, args=("--dry-run",))

    def document(name: str) -> dict:
        try:
            return json.loads((out / name).read_text())
        except FileNotFoundError:
            return {}

    def quoted() -> dict | None:
        quotes = document("mm_quotes.json")
        return quotes if quotes and all(quotes["quotes"].values()) else None
    try:
        group.wait_up()
        wait_for(quoted, 60, lambda: f"no quotes on both outcomes: {document('mm_quotes.json')}")
        status = wait_for(lambda: (s := document("mm_status.json")) and s["quotes"] and s, 20, lambda: str(document("mm_status.json")))
        assert status["dry_run"] is True and status["quoting"] is False and "dry run" in status["why_not"] and status["orders"] == 0
        assert "DRY RUN" in group.mmbot("status").stdout and group.json("status")["dry_run"] is True
        before = document("mm_quotes.json")["timestamp"]
        time.sleep(1.0)
        assert document("mm_quotes.json")["timestamp"] > before, "it is written anew all the time"
        with urllib.request.urlopen(f"{group.cfg.venue.clob_url}/sim/stamps", timeout=5) as answer:
            seen = json.load(answer)
        assert seen["frames"] and seen["posts"] == [], "the exchange was asked to place an order"
        assert not group.books()["orders"] and not group.books()["fills"]
        done = group.stop()
        assert (done["orders"], done["cancels"], done["fills"]) == (0, 0, 0) and any(w["quoted_up"] and w["quoted_down"] for w in done["windows"])
        assert not any(document("mm_quotes.json")["quotes"].values()) and document("mm_status.json")["why_not"] == "output is stopped"
        assert View(group.cfg).state("output") == "HALT"
    finally:
        group.clean_up()
