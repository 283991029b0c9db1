"""`mmbot calibrate`: judge the pricers of these settings on recorded data, write the report and the fit.

Owns: the command's options and its files. Can go wrong: no recordings, an absent extra, a place that cannot be written (UserError, nothing half-written).
"""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from mmbot.cli.options import ConfigOption, settings
from mmbot.errors import UserError


def _write(path: Path, text: str) -> None:
    """All of the file or nothing."""
    part = path.with_name(f".{path.name}.part")
    try:
        part.write_text(text)
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {e.strerror or e}") from None


def _write_rows(path: Path, result) -> None:
    """The rows each fit was made of, with their stamps, as parquet."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from mmbot.calibration.fit import FEATURES

    columns = {"fit": np.concatenate([np.full(len(rows.up), name) for name, rows in result.rows.items()])}
    for name in ("pm_ts_ms", "spot_ts_ms", "dt_ms", "start_s", "q", "spread", "up"):
        columns[name] = np.concatenate([getattr(rows, name) for rows in result.rows.values()])
    for i, feature in enumerate(FEATURES[1:], 1):
        columns[feature] = np.concatenate([rows.x[:, i] for rows in result.rows.values()])
    part = path.with_name(f".{path.name}.part")
    try:
        pq.write_table(pa.table(columns), part)
        os.replace(part, path)
    except OSError as e:
        part.unlink(missing_ok=True)
        raise UserError(f"cannot write {path}: {e.strerror or e}") from None


def command(context: typer.Context, config: ConfigOption = None,
            data: Annotated[Path | None, typer.Option("--data", metavar="DIR", show_default=False, help="Folder of recordings (default: $MMBOT_DATA).")] = None,
            out: Annotated[Path, typer.Option("--out", metavar="FILE", help="Where the report goes.")] = Path("calibration.html"),
            fit: Annotated[Path | None, typer.Option("--fit", metavar="FILE", show_default=False,
                                                     help="Write the logit-linear fits here (JSON), and their rows beside it (parquet).")] = None) -> None:
    """Judge the pricers of these settings on recorded data; write a report."""
    cfg = settings(config, context)
    for path in (out, fit):
        if path is not None and not path.parent.is_dir():
            raise UserError(f"{path}: the folder {path.parent} does not exist; make it first")
    try:
        import plotly  # noqa: F401
        import pyarrow  # noqa: F401
        import scipy  # noqa: F401
    except ImportError as e:
        raise UserError(f"calibrate needs {e.name}: pip install 'mmbot[research]'") from None
    from mmbot.calibration import fitfile, recordings, report, run

    result = run.calibrate(recordings.folder(data), cfg.strategy, lambda line: print(f"{line} ...", file=sys.stderr, flush=True))
    _write(out, report.page(result))
    print("\n".join(report.lines(result)))
    print(f"report: {out}")
    if fit is not None:
        _write(fit, fitfile.dump(result.fits))
        rows = fit.with_suffix(".rows.parquet")
        _write_rows(rows, result)
        print(f"fits {', '.join(result.fits)}: {fit}, their rows: {rows}")


def register(app: typer.Typer) -> None:
    """Add the command to the application."""
    app.command("calibrate")(command)
