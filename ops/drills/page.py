"""The report of a run for people: one HTML file that needs nothing else, not even scripts. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ops.drills.findings import Checked, Verdict
from ops.drills.outages import Recovery
from ops.drills.picture import COLOURS, clean, svg
from ops.drills.record import Proof, Run

NARROW, WIDE = 360, 920
"""widths in CSS pixels for which the picture is made: a phone's, and that of the text"""
WORDS = {
    Verdict.PASS: ("\u2713 passed", "Every promise that this drill looks at was kept."),
    Verdict.FAIL: ("\u2717 failed", "A promise was broken."),
    Verdict.UNKNOWN: ("? unknown", "Nothing was found broken, but not everything was shown."),
}
OPERATIONS_MAX = 14
_ORDER = (Verdict.FAIL, Verdict.UNKNOWN, Verdict.PASS)
CHECKS = {
    "O1": "each key behaves as one register",
    "O2": "no acknowledged write is lost",
    "O3": "no false 404, nothing stale",
    "O4": "every copy is where it should be",
    "O5": "errors stay within the budget",
    "O6": "service is back in time",
    "O7": "the job came to what it comes to without the fault",
    "O9": "listings agree with what GET finds",
    "O10": "no crash, no unit given up, faults reverted",
    "wait": "nobody waits too long or is sent away without a word",
    "takeover": "primaries don't go from peer to peer",
    "gate": "the run shows something",
}

# Blue, orange, green, purple, sky and vermilion as Okabe and Ito chose them for all eyes; `-ink` where they are text.
STYLE = """
:root{color-scheme:light dark;--paper:#fff;--ink:#1b1f24;--soft:#59636e;--rule:#d8dee4;--grid:#e8ebee;--fault:#f3d9c6;--panel:#f6f8fa;
--blue:#0072b2;--orange:#e69f00;--green:#009e73;--purple:#cc79a7;--sky:#56b4e9;--red:#d55e00;--on-band:#000;
--blue-ink:#00609a;--orange-ink:#8a5f00;--red-ink:#b04e00;--pass:#00704f;--fail:#b03a00;--unknown:#6b5500}
@media (prefers-color-scheme:dark){:root{--paper:#14181d;--ink:#e6e9ec;--soft:#9da7b1;--rule:#38414b;--grid:#262d35;--fault:#4a3222;
--panel:#1c2229;--blue:#4aa3dc;--orange:#f0b429;--green:#2bbd92;--purple:#d98fb8;--sky:#7cc6f0;--red:#f0803c;
--blue-ink:#6db8e8;--orange-ink:#f0b429;--red-ink:#f59a63;--pass:#2bbd92;--fail:#f59a63;--unknown:#e3c04b}}
@media print{:root{color-scheme:light;--paper:#fff;--ink:#000;--soft:#444;--rule:#bbb;--grid:#ddd;--fault:#f3d9c6;--panel:#fff;
--blue:#0072b2;--orange:#e69f00;--green:#009e73;--purple:#cc79a7;--sky:#56b4e9;--red:#d55e00;--on-band:#000;
--blue-ink:#00609a;--orange-ink:#8a5f00;--red-ink:#b04e00;--pass:#00704f;--fail:#b03a00;--unknown:#6b5500}
*{-webkit-print-color-adjust:exact;print-color-adjust:exact}h2,figure,tr,article{break-inside:avoid}h2{break-after:avoid}}
*{box-sizing:border-box}
body{margin:0 auto;padding:16px 16px 48px;max-width:960px;background:var(--paper);color:var(--ink);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif;overflow-wrap:break-word}
h1{font-size:1.6rem;line-height:1.2;margin:.4rem 0 .2rem}h2{font-size:1.15rem;margin:2rem 0 .5rem}
p{margin:.4rem 0}.soft{color:var(--soft);fill:var(--soft)}
.verdict{font-weight:700}.pass{color:var(--pass)}.fail{color:var(--fail)}.unknown{color:var(--unknown)}
dl{display:grid;grid-template-columns:max-content 1fr;gap:.15rem .9rem;margin:1rem 0;padding:.7rem 0;border:solid var(--rule);
border-width:1px 0}dt{color:var(--soft)}dd{margin:0;min-width:0}
.scroll{overflow-x:auto}table{border-collapse:collapse;width:100%;font-size:.92rem}
th,td{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;border-bottom:1px solid var(--rule)}
th{color:var(--soft);font-weight:400;vertical-align:bottom}.n{text-align:right;font-variant-numeric:tabular-nums}
td.n{white-space:nowrap}article{border-left:3px solid var(--rule);padding:.1rem 0 .1rem .8rem;margin:.8rem 0}
article.fail{border-color:var(--fail);color:inherit}article.unknown{border-color:var(--unknown);color:inherit}
pre{white-space:pre-wrap;background:var(--panel);padding:.6rem;margin:.4rem 0;font:12px/1.5 ui-monospace,"DejaVu Sans Mono",monospace}
ul,ol{padding-left:1.2rem;margin:.4rem 0}figure{margin:0}svg{display:block;width:100%;height:auto}
svg text{fill:var(--ink);font-family:system-ui,-apple-system,"Segoe UI",Roboto,"DejaVu Sans",sans-serif}
svg .soft{fill:var(--soft)}svg .lane{font-weight:600}svg .fault-name{font-weight:600;fill:var(--red-ink)}
svg .grid{stroke:var(--grid);fill:none}svg .line{fill:none;stroke-width:1.6;stroke-linejoin:round}
svg .fault{fill:var(--fault);opacity:.6}svg .nobody{fill:none;stroke:var(--red);stroke-dasharray:3 2}svg .on-band{fill:var(--on-band)}
svg .held{fill:var(--soft)}svg .lost{fill:none;stroke:var(--red)}svg .unseen{fill:var(--rule)}
svg .blue-ink{fill:var(--blue-ink)}svg .orange-ink{fill:var(--orange-ink)}svg .red-ink{fill:var(--red-ink)}
"""
STYLE += "".join(f"svg .f-{c}{{fill:var(--{c})}}svg .s-{c}{{stroke:var(--{c})}}" for c in COLOURS)
STYLE += """
@media (max-width:500px){table{font-size:.82rem}th,td{padding-right:.45rem}}
.wide{display:none}@media (min-width:700px),print{.wide{display:block}.narrow{display:none}}
"""


def html(run: Run) -> str:
    """The whole file."""
    word, meaning = WORDS[run.verdict]
    title = f"{run.drill} on {run.region}: {word}"
    parts = [
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{clean(title)}</title>",
        f"<style>{STYLE}</style></head><body><main>",
        f'<p class="soft">Drill on region {clean(run.region)}, {clean(run.started.replace("T", " "))}</p>',
        f'<h1>{clean(run.drill)} <span class="verdict {run.verdict}">{word}</span></h1>',
        f"<p>{clean(meaning)}{' It was interrupted.' if run.interrupted else ''}</p>",
        f'<p class="soft">{clean(run.doc)}</p>',
        *_short(run),
        "<h2>What happened when</h2>",
        f'<figure><div class="narrow">{svg(run, NARROW)}</div><div class="wide">{svg(run, WIDE)}</div></figure>',
        *_findings(run),
        *_checks(run.checked),
        *_recoveries("Recovery while the fault held", run.recovered),
        *_recoveries("Recovery after the heal", run.healed),
        *_proofs(run),
        *_events(run),
        "</main></body></html>\n",
    ]
    return "\n".join(parts)


def _short(run: Run) -> Iterator[str]:
    reads_s, writes_s = run.rto_s(writes=False), run.rto_s(writes=True)
    rows = [
        ("Reads were out", _seconds(reads_s, "at the longest")),
        ("Writes were out", _seconds(writes_s, "at the longest")),
        (
            "Operations",
            f"{run.total:,}; {run.failed:,} failed{f' ({run.failed / run.total:.2%})' if run.total else ''}",
        ),
        ("Claims", ", ".join(run.claims) or "none"),
        ("Took", f"{run.took_s:.0f} s"),
        ("Profile, seed", f"{run.profile}, {run.seed}"),
    ]
    yield "<dl>"
    yield from (f"<dt>{clean(name)}</dt><dd>{clean(value)}</dd>" for name, value in rows)
    yield "</dl>"


def _seconds(value_s: float | None, more: str = "") -> str:
    return "not looked at" if value_s is None else f"{value_s:.1f} s {more}".strip()


def _findings(run: Run) -> Iterator[str]:
    found = [f for checked in run.checked for f in checked.findings]
    if not found:
        return
    yield "<h2>What was found</h2>"
    for f in found:
        yield f'<article class="{f.verdict}"><p><b>{clean(f.check)}</b> {clean(f.what)}</p>'
        if f.operations:
            lines = "\n".join(line.strip() for line in f.lines(run.origin_s)[-OPERATIONS_MAX:])
            yield f"<pre>{clean(lines)}</pre>"
        yield "</article>"


def _checks(checked: Sequence[Checked]) -> Iterator[str]:
    yield "<h2>What was checked</h2>"
    rows = (
        (
            f"<td>{clean(c.check)}</td>",
            f"<td>{clean(CHECKS.get(c.check, ''))}</td>",
            f'<td class="{c.verdict}">{WORDS[c.verdict][0]}</td>',
            f'<td class="n">{len(c.findings)}</td>',
        )
        for c in sorted(checked, key=lambda c: (_ORDER.index(c.verdict), c.check[0] != "O", len(c.check), c.check))
    )
    yield from _table(("check", "promise", "verdict", "findings"), rows, last_right=1)


def _recoveries(title: str, recovered: Sequence[Recovery]) -> Iterator[str]:
    if not recovered:
        return
    yield f"<h2>{title}</h2>"
    rows = (
        (
            f"<td>{clean(r.name)}</td>",
            f'<td class="n">{r.outage_s:.1f} s</td>',
            f'<td class="n">{"never" if r.steady_after_s is None else f"{r.steady_after_s:.1f} s"}</td>',
            f'<td class="n">{r.failed:,} of {r.operations:,}</td>',
        )
        for r in recovered
    )
    yield from _table(("class", "longest outage", "steady after", "failed"), rows, last_right=3)


def _table(names: Sequence[str], rows: Iterable[Sequence[str]], *, last_right: int) -> Iterator[str]:
    left = len(names) - last_right
    heads = "".join(f"<th{' class=n' if n >= left else ''}>{clean(name)}</th>" for n, name in enumerate(names))
    yield f'<div class="scroll"><table><thead><tr>{heads}</tr></thead><tbody>'
    yield from (f"<tr>{''.join(row)}</tr>" for row in rows)
    yield "</tbody></table></div>"


def _proofs(run: Run) -> Iterator[str]:
    groups: list[tuple[str, Sequence[Proof]]] = [("Before", run.before)]
    for fault in run.faults:
        until = "not healed" if fault.healed_s is None else f"healed at {fault.healed_s:.1f} s"
        head = f"{fault.name}: {fault.what}; injected at {fault.injected_s:.1f} s, {until}"
        groups.append((head, (*fault.proofs, *fault.reverted)))
    groups.append(("After", run.after))
    yield "<h2>The fault, and the state around it</h2>"
    for name, proofs in groups:
        if proofs or name not in ("Before", "After"):
            yield f"<p>{clean(name)}</p><ul>"
            yield from (f"<li>{_mark(p.so)} {clean(p.what)}</li>" for p in proofs)
            yield "</ul>"


def _mark(so: bool) -> str:
    return '<span class="pass">\u2713</span>' if so else '<span class="fail">\u2717 not so:</span>'


def _events(run: Run) -> Iterator[str]:
    if run.events:
        yield "<h2>Events</h2>"
        rows = ((f'<td class="n">{e.at_s:.1f} s</td>', f"<td>{clean(e.what)}</td>") for e in run.events)
        yield from _table(("at", "what"), rows, last_right=0)
