"""What the doctor says: one line per check. Pure data, made by `doctor` and `doctor_venue`, shown by `mmbot.cli.render`."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``fix`` is what a person does about it."""
    level: Literal["ok", "warn", "fail"]
    what: str
    detail: str
    fix: str = ""
