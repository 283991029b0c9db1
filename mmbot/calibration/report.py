"""The report of a calibration: one HTML file that needs nothing else.

Owns: what the page shows and how. Reads a `run.Result`, writes text. Tables for figures, plots for shapes; every score with its 95 % interval.
Can go wrong: plotly is absent (UserError names the extra).
"""

import html


from mmbot.calibration import judge, scores
from mmbot.calibration.run import Result, Verdict
from mmbot.errors import UserError

COLOURS = {judge.TWAP: "#0b6e4f", judge.PLAIN: "#c1440e", "binary": "#8d6a9f", judge.DOCUMENT: "#9a9a9a", judge.MARKET: "#1f4e8c", judge.BLEND: "#d4a017",
           "logit fit": "#444444"}
WIDTH = 545                 # two plots side by side
STYLE = """
body{font:15px/1.5 system-ui,sans-serif;color:#222;max-width:1120px;margin:2em auto;padding:0 1em}
h1{font-size:1.6em;margin-bottom:.2em} h2{font-size:1.2em;margin-top:2.2em;border-bottom:1px solid #ccc;padding-bottom:.2em} h3{font-size:1em;margin:1.4em 0 .3em}
table{border-collapse:collapse;margin:.6em 0 1em;font-size:13px;font-variant-numeric:tabular-nums} th,td{padding:.25em .7em;text-align:right;border-bottom:1px solid #e4e4e4;white-space:nowrap}
th{background:#f5f5f5;font-weight:600} td:first-child,th:first-child{text-align:left} .best{font-weight:700} .bad{color:#b00020} .good{color:#0b6e4f}
.ci{color:#888;font-size:11px;white-space:nowrap} .note{color:#555;max-width:80ch} .pair{display:flex;flex-wrap:wrap;gap:1em}
.wide{overflow-x:auto}
"""


def _plotly():
    try:
        import plotly.graph_objects as go
    except ImportError:
        raise UserError("calibrate needs plotly: pip install 'mmbot[research]'") from None
    return go


def rows_table(head: list[str], rows: list[list[str]]) -> str:
    """An HTML table; cells are HTML already."""
    top = "".join(f"<th>{h}</th>" for h in head)
    body = "".join("<tr>" + "".join(f"<td>{c}</td>" for c in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table><tr>{top}</tr>{body}</table></div>'


def cell(e: scores.Estimate, digits: int = 4, best: bool = False) -> str:
    """A figure with its interval."""
    return f'<span class="{"best" if best else ""}">{e.value:.{digits}f}</span> <span class="ci">{e.low:.{digits}f} to {e.high:.{digits}f}</span>'


def signed(e: scores.Estimate) -> str:
    """A gain: green when its interval is above 0, red when below."""
    colour = "good" if e.low > 0 else "bad" if e.high < 0 else ""
    return f'<span class="{colour}">{e.value:+.4f}</span> <span class="ci">{e.low:+.4f} to {e.high:+.4f}</span>'


def _figure(go, first: list, title: str, x: str, y: str, height: int = 380, **layout) -> object:
    fig = go.Figure(layout={"title": {"text": title, "font": {"size": 14}}, "xaxis_title": x, "yaxis_title": y, "template": "plotly_white", "height": height,
                            "margin": {"l": 60, "r": 20, "t": 45, "b": 50}, "legend": {"orientation": "h", "y": -0.22}, "width": WIDTH, **layout})
    for trace in first:
        fig.add_trace(trace)
    return fig


def _html(fig, plain: list[bool]) -> str:
    """The figure's HTML; the first one of a page brings the library along."""
    bring, plain[0] = plain[0], False
    return fig.to_html(full_html=False, include_plotlyjs="inline" if bring else False, config={"displayModeBar": False, "responsive": False})


def _reliability(go, v: Verdict) -> object:
    traces = [go.Scatter(x=[0, 1], y=[0, 1], mode="lines", line={"color": "#bbb", "dash": "dot"}, showlegend=False)]
    for name, p in v.case.p.items():
        points = scores.diagram(p, v.case.up, v.case.block)
        bars = {"type": "data", "symmetric": False, "array": [max(e.high - e.value, 0) for _, e, _ in points], "arrayminus": [max(e.value - e.low, 0) for _, e, _ in points],
                "thickness": 1} if name == next(iter(v.case.p)) else None
        traces.append(go.Scatter(x=[x for x, _, _ in points], y=[e.value for _, e, _ in points], mode="lines+markers", name=name, error_y=bars,
                                 line={"color": COLOURS.get(name)}, text=[f"{n} rows" for _, _, n in points]))
    return _figure(go, traces, "Reliability: how often Up came when it was said", "said", "came", xaxis_range=[0, 1], yaxis_range=[0, 1])


def _by_time(go, v: Verdict) -> object:
    buckets = [b for b in dict.fromkeys(s.bucket for s in v.scores) if b != "all"]
    traces = []
    for name in v.case.p:
        found = [next(s for s in v.scores if s.bucket == b and s.name == name).log_loss for b in buckets]
        traces.append(go.Bar(x=buckets, y=[e.value for e in found], name=name, marker_color=COLOURS.get(name),
                             error_y={"type": "data", "symmetric": False, "array": [e.high - e.value for e in found], "arrayminus": [e.value - e.low for e in found], "thickness": 1}))
    return _figure(go, traces, "Log loss by seconds to the close (lower is better)", "seconds to the close", "log loss", barmode="group")


def _verdict(go, v: Verdict, plain: list[bool]) -> str:
    case, names = v.case, list(v.case.p)
    out = [f"<h2>{html.escape(case.name[0].upper() + case.name[1:])}</h2>",
           f'<p class="note">{case.windows} windows, {len(case.up)} rows, {case.up.mean():.1%} of them Up.'
           + (f" {case.left_out} windows left out for missing prints or winners." if case.left_out else "") + "".join(f" {html.escape(n[0].upper() + n[1:])}." for n in case.notes) + "</p>"]
    overall = [s for s in v.scores if s.bucket == "all"]
    best = min(overall, key=lambda s: s.log_loss.value).name
    out.append(rows_table(["forecaster", "log loss", "Brier", "sharpness", "slope (1)", "intercept (0)"],
                          [[s.name, cell(s.log_loss, best=s.name == best), cell(s.brier), f"{s.sharpness:.3f}", cell(s.slope, 3), cell(s.intercept, 3)] for s in overall]))
    out.append('<div class="pair"><div>' + _html(_reliability(go, v), plain) + "</div><div>" + _html(_by_time(go, v), plain) + "</div></div>")
    buckets = list(dict.fromkeys(s.bucket for s in v.scores))
    for title, pick in (("Log loss", "log_loss"), ("Brier score", "brier")):
        rows = []
        for b in buckets:
            found = {s.name: s for s in v.scores if s.bucket == b}
            least = min(found.values(), key=lambda s: getattr(s, pick).value).name
            rows.append([b, str(next(iter(found.values())).rows)] + [cell(getattr(found[n], pick), best=n == least) for n in names])
        out.append(f"<h3>{title} by seconds to the close</h3>" + rows_table(["to the close", "rows", *names], rows))
    pairs = list(dict.fromkeys((g.name, g.over) for g in v.gains))
    rows = [[b] + [signed(next(g.gain for g in v.gains if g.bucket == b and (g.name, g.over) == pair)) for pair in pairs]
            for b in dict.fromkeys(g.bucket for g in v.gains)]
    out.append("<h3>Paired gain in log loss (above 0 is better)</h3>" + rows_table(["to the close", *(f"{a} over {b}" for a, b in pairs)], rows))
    return "".join(out)


def _markets(result: Result) -> str:
    out = ['<h2>Blend with the market</h2><p class="note">Weight of the model, chosen on the first half of the windows (bold) and judged on the second, against the '
           "market mid alone. These are few windows; the intervals are by windows.</p>"]
    for case in dict.fromkeys(m.case for m in result.mixes):
        rows = [[f'<span class="{"best" if m.chosen else ""}">{m.form}, {m.weight:g}</span>', f"{m.train_loss:.4f}", f"{m.test_loss:.4f}", signed(m.gain)]
                for m in result.mixes if m.case == case]
        out.append(f"<h3>{html.escape(case)}</h3>" + rows_table(["blend", "log loss, first half", "second half", "gain over the mid, second half"], rows))
    if result.takes:
        out.append('<h3>Taking where the edge exceeds the fee</h3><p class="note">Dollars a share after fees on the recorded book of 5 min windows, by fee schedule. No delay '
                   "and no size: it says whether the disagreement with the market is right, not what it would have earned.</p>"
                   + rows_table(["forecaster", "fees", "rows", "windows", "dollars a share"],
                                [[t.forecaster, t.schedule, str(t.rows), str(t.windows), signed(t.pnl)] for t in result.takes]))
    return "".join(out)


def _fits(result: Result) -> str:
    rows = [[html.escape(s.name), s.forecaster, str(s.windows), str(s.rows), cell(s.log_loss), cell(s.brier)] for s in result.fit_scores]
    made = [[name, str(f["windows"]), str(f["rows"]), *(f"{b:.4g}" for b in f["beta"])] for name, f in result.fits.items()]
    first = next(iter(result.fits.values()))["features"] if result.fits else []
    return ('<h2>The logit-linear model of document 0</h2><p class="note">Made on the first half of the windows, judged on the second. One fit learns what the market quotes, '
            "the other what settles.</p>" + rows_table(["windows", "forecaster", "windows judged", "rows", "log loss", "Brier"], rows)
            + "<h3>Coefficients, made on all windows</h3>" + rows_table(["fit", "windows", "rows", *first], made))


def _study(go, result: Result, plain: list[bool]) -> str:
    out = ["<h2>Volatility</h2>", rows_table(["return over", "per root second", "over that of 900 s", "returns"],
                                            [[f"{s.horizon_s} s", f"{s.sigma:.3e}", f"{s.ratio:.2f}", str(s.returns)] for s in result.sigmas])]
    out.append('<h3>Which settings</h3><p class="note">Log loss of the twap pricer, a window starting every minute, both lengths together. Ordered by the first half of the day; '
               "the setting in use is bold.</p>" + rows_table(["half-life, baseline weight, tail", "first half", "second half"], [
                   [f'<span class="{"best" if c.default else ""}">{c.half_life_var_s:g} s, {c.long_weight:g}, {"normal" if c.tail_dof == 0 else f"t{c.tail_dof}"}</span>',
                    f"{c.train:.4f}", f"{c.test:.4f}"] for c in result.choices]))
    if result.tails:
        least = min(result.tails, key=lambda t: t.loss)
        out.append('<h3>Tails</h3><p class="note">Negative log likelihood of the next 5 minute return of months of windows (second half), around the variance known before it.</p>'
                   + rows_table(["tail", "loss"], [[f'<span class="{"best" if t is least else ""}">{"normal" if t.dof == 0 else f"t{t.dof}"}</span>', f"{t.loss:.4f}"]
                                                  for t in result.tails]))
    if result.leads:
        ahead = sorted({x.ahead_ms for x in result.leads})
        rows = [[f"{lag} ms"] + [f"{next(x for x in result.leads if (x.lag_ms, x.ahead_ms) == (lag, a)).ratio:.3f}" for a in ahead] for lag in sorted({x.lag_ms for x in result.leads})]
        out.append(f'<h2>Lead of the spot venue</h2><p class="note">Error of the nowcast as a predictor of Chainlink\'s print, over the error of the newest print; '
                   f"{result.leads[0].rows} looks at five minutes of both feeds on one clock.</p>"
                   + rows_table(["print lags the venue by", *(f"print of {a / 1000:g} s from now" for a in ahead)], rows))
        traces = [go.Scatter(x=[a / 1000 for a in ahead], y=[next(x for x in result.leads if (x.lag_ms, x.ahead_ms) == (lag, a)).ratio for a in ahead], name=f"{lag} ms", mode="lines+markers")
                  for lag in sorted({x.lag_ms for x in result.leads})]
        out.append(_html(_figure(go, traces, "Nowcast over newest print (below 1 is better)", "seconds ahead", "ratio of errors", 340), plain))
    return "".join(out)


def _head(result: Result) -> str:
    s, m = result.strategy, result.strategy.model
    used = [["pricer", m.pricer], ["half_life_var_s", f"{s.half_life_var_s:g}"], ["long_weight", f"{m.long_weight:g}"], ["half_life_long_s", f"{m.half_life_long_s:g}"],
            ["tail_dof", str(m.tail_dof)], ["twap_lag_s", str(m.twap_lag_s)], ["twap_noise", f"{m.twap_noise:g}"], ["oracle_noise_s", f"{m.oracle_noise_s:g}"],
            ["print_lag_ms", str(m.print_lag_ms)], ["model_weight, blend", f"{s.model_weight:g}, {m.blend}"]]
    read = [[html.escape(n), f'<span class="ci">{h[:16]}</span>'] for n, h in result.recordings.items()]
    absent = f'<p class="note">Not there, so not judged: {html.escape(", ".join(result.absent))}.</p>' if result.absent else ""
    return ('<h1>Calibration</h1><p class="note">Recorded prints through the compiled pricers, judged by proper scores. <b>twap</b> prices what settles; <b>spot</b> is Phi on the spot '
            "price with our variance and the strike that settles; <b>binary</b> an option with a fixed volatility; <b>document 1</b> the plain formula as written, with its 30 s variance and "
            "the spot print at the start for a strike. Intervals are 95 %, by a bootstrap over blocks of half an hour of windows.</p>"
            + '<div class="pair"><div>' + rows_table(["parameter", "value"], used) + "</div><div>" + rows_table(["recording", "SHA-256"], read) + "</div></div>" + absent)


def page(result: Result) -> str:
    """The whole page."""
    go, plain = _plotly(), [True]
    parts = [_head(result), *(_verdict(go, v, plain) for v in result.verdicts), _markets(result) if result.mixes else "", _fits(result), _study(go, result, plain)]
    return f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>mmbot calibration</title><style>{STYLE}</style></head><body>{"".join(parts)}</body></html>\n'


def lines(result: Result) -> list[str]:
    """The verdicts in short, for a terminal."""
    out = []
    for v in result.verdicts:
        out.append(f"{v.case.name}: {v.case.windows} windows")
        out += [f"  {s.name:<11} log loss {s.log_loss.value:.4f}  Brier {s.brier.value:.4f}  slope {s.slope.value:.2f} [{s.slope.low:.2f}, {s.slope.high:.2f}]"
                for s in v.scores if s.bucket == "all"]
    return out
