"""The report's one style sheet: narrow and wide screens, light and dark, paper.

Every text has a contrast of at least 4.5 to what lies behind it, every line of a chart 3 (WCAG 2.2, 1.4.3 and 1.4.11);
``tests/pipeline/test_report_style.py`` computes them from the three palettes below.
"""

from __future__ import annotations

from collections.abc import Mapping

LIGHT: Mapping[str, str] = {
    "page": "#f6f6f4", "panel": "#ffffff", "ink": "#1c1f24", "soft": "#59606c", "line": "#d9dce1", "grid": "#e7e9ed",
    "s1": "#1f5fa8", "s2": "#b34e08", "s3": "#1f7346", "s4": "#7a47b0", "s5": "#a32563", "s6": "#5d6320",
    "good": "#1b7a45", "bad": "#b3261e", "warn": "#7d5200",
    "good-page": "#e8f4ec", "bad-page": "#fbeae8", "plain-page": "#eef0f3",
    "fan": "#d5e2f1", "fan-narrow": "#a9c6e6",
    "up1": "#e4eefa", "up2": "#c3daf3", "up3": "#9fc3ec", "down1": "#fdeede", "down2": "#f9d7b5", "down3": "#f3bd88",
}  # fmt: skip
DARK: Mapping[str, str] = {
    "page": "#14161a", "panel": "#1c1f25", "ink": "#e6e8ec", "soft": "#a3aab6", "line": "#363b45", "grid": "#2a2e36",
    "s1": "#7ab3f2", "s2": "#f0a260", "s3": "#6ac995", "s4": "#c4a0f0", "s5": "#f08fbc", "s6": "#c5cc7a",
    "good": "#6ac995", "bad": "#f28b82", "warn": "#e6b450",
    "good-page": "#1a2b22", "bad-page": "#331f1e", "plain-page": "#252932",
    "fan": "#26374c", "fan-narrow": "#325680",
    "up1": "#1f2f42", "up2": "#26466b", "up3": "#2a5688", "down1": "#3a2c1e", "down2": "#553a1e", "down3": "#704718",
}  # fmt: skip
PAPER: Mapping[str, str] = LIGHT | {
    "page": "#ffffff", "ink": "#000000", "soft": "#444444", "line": "#bbbbbb", "grid": "#e4e4e4",
    "good-page": "#ffffff", "bad-page": "#ffffff", "plain-page": "#ffffff",
}  # fmt: skip


def _root(palette: Mapping[str, str]) -> str:
    return " ".join(f"--{name}: {value};" for name, value in palette.items())


_SERIES = "\n".join(
    f".c{i}, .s{i} {{ stroke: var(--s{i}); }} .f{i} {{ fill: var(--s{i}); }} svg .t{i} {{ fill: var(--s{i}); }}"
    for i in range(1, 7)
)

STYLE = f"""
:root {{ color-scheme: light dark; {_root(LIGHT)} }}
@media (prefers-color-scheme: dark) {{ :root {{ {_root(DARK)} }} }}
{_SERIES}
""" + """
.c2 { stroke-dasharray: 6 4; } .c3 { stroke-dasharray: 1.5 4; } .c4 { stroke-dasharray: 9 3 2 3; }
.c5 { stroke-dasharray: 3 3; } .c6 { stroke-dasharray: 12 4; }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--ink);
  font: 15px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif;
  -webkit-text-size-adjust: 100%; text-size-adjust: 100%; }
main { max-width: 1120px; margin: 0 auto; padding: 20px 16px 60px; }
h1 { font-size: 26px; line-height: 1.2; margin: 0 0 2px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 0 0 12px; padding-top: 4px; overflow-wrap: anywhere; }
h3 { font-size: 15px; margin: 24px 0 8px; }
p { margin: 6px 0; max-width: 75ch; }
.note { color: var(--soft); font-size: 13px; font-weight: 400; margin-left: 10px; }
section { background: var(--panel); border: 1px solid var(--line); border-radius: 8px; padding: 16px 18px 18px;
  margin-top: 18px; min-width: 0; }
nav { display: flex; flex-wrap: wrap; gap: 4px 16px; margin: 12px 0 0; font-size: 14px; }
nav a { padding: 3px 0; }
a { color: var(--s1); } a:focus-visible, summary:focus-visible, .scroll:focus-visible { outline: 2px solid var(--s1); }
.verdict { border-left-width: 8px; }
.verdict.good { border-left-color: var(--good); } .verdict.bad { border-left-color: var(--bad); }
.verdict p { max-width: 110ch; }
.verdict .call { font-size: 22px; font-weight: 650; line-height: 1.3; margin: 0 0 4px; max-width: none; }
.good .call { color: var(--good); } .bad .call { color: var(--bad); }
p.note, div.note { margin-left: 0; }
.two { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(320px, 100%), 1fr)); gap: 8px 32px; }
.two > * { min-width: 0; }
.charts { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(290px, 100%), 1fr)); gap: 20px 24px;
  align-items: start; }
figure { margin: 0; min-width: 0; break-inside: avoid; }
figcaption { font-size: 13.5px; font-weight: 600; margin-bottom: 3px; }
figcaption .unit { color: var(--soft); font-weight: 400; } figcaption .unit::before { content: ", "; }
figcaption .unit:empty { display: none; }
figcaption .change { color: var(--soft); font-weight: 400; white-space: nowrap; }
figcaption .legend { display: block; color: var(--soft); font-size: 12px; font-weight: 400; line-height: 1.45; }
.legend span { display: inline-block; margin-right: 12px; } .legend svg { vertical-align: middle; margin-right: 4px; }
svg.chart { display: block; width: 100%; max-width: 420px; height: auto; overflow: visible; }
svg text { font: 11.5px system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; fill: var(--soft); }
svg .value, svg .label { fill: var(--ink); }
svg .value, svg .label, svg .end { paint-order: stroke; stroke: var(--panel); stroke-width: 4px; }
svg .end { font-weight: 600; } svg .value { font-variant-numeric: tabular-nums; }
svg .grid { stroke: var(--grid); stroke-width: 1; } svg .axis { stroke: var(--soft); stroke-width: 1; }
svg .limit { stroke: var(--bad); stroke-width: 1.2; stroke-dasharray: 6 4; } svg .limit-text { fill: var(--bad); }
svg .zero { stroke: var(--ink); stroke-width: 1; stroke-dasharray: 2 3; }
svg .line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
svg .thin { stroke-width: 1; opacity: .4; } svg .thin.line { stroke-dasharray: none; }
svg .whisker { stroke-width: 1.5; } svg .faint { opacity: .45; }
svg .band { opacity: .16; stroke: none; } svg .bar { opacity: .8; }
svg .fan { fill: var(--fan); } svg .fan.narrow { fill: var(--fan-narrow); }
svg .ridge { fill: var(--fan-narrow); fill-opacity: .75; stroke: var(--s1); stroke-width: 1.2; }
svg .median { stroke: var(--ink); stroke-width: 2; }
svg .box { fill: var(--plain-page); stroke: var(--soft); } svg .box.stage { fill: var(--panel); stroke: var(--s1);
  stroke-width: 1.6; } svg .edge { fill: none; stroke: var(--soft); stroke-width: 1.2; }
svg .arrow { fill: var(--soft); } svg .name { fill: var(--ink); font-weight: 600; font-size: 12.5px; }
.wide svg.chart { max-width: none; width: auto; }
.numbers { margin: 2px 0 0; } .numbers summary { font-size: 12px; padding: 2px 0; }
.numbers .scroll { max-height: 260px; overflow: auto; border: 1px solid var(--line); border-radius: 4px;
  margin: 4px 0; }
.numbers table { font-size: 12px; font-variant-numeric: tabular-nums; } .numbers th { font-size: 12px; }
.numbers th, .numbers td { padding: 2px 10px; text-align: right; white-space: nowrap; }
.scroll { overflow-x: auto; margin: 8px 0; }
table { border-collapse: collapse; font-size: 14px; min-width: 100%; }
th { text-align: left; color: var(--soft); font-weight: 600; font-size: 12.5px; vertical-align: bottom; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--grid); vertical-align: top;
  overflow-wrap: break-word; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
code { font: 12.5px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
.badge { display: inline-block; border-radius: 4px; padding: 0 7px; font-size: 13px; white-space: nowrap;
  background: var(--plain-page); }
.badge.good { background: var(--good-page); color: var(--good); }
.badge.bad { background: var(--bad-page); color: var(--bad); font-weight: 600; }
.facts { display: flex; flex-wrap: wrap; gap: 6px 26px; margin: 8px 0 12px; } .facts div { min-width: 0; }
dt { color: var(--soft); font-size: 12.5px; } dd { margin: 0; overflow-wrap: anywhere; }
.missing { color: var(--soft); font-style: italic; }
.notes { margin: 8px 0; padding: 8px 12px 8px 28px; background: var(--plain-page); border-left: 4px solid var(--warn);
  border-radius: 4px; font-size: 14px; overflow-wrap: anywhere; }
.prompt { margin: 18px 0 6px; font-size: 13.5px; color: var(--soft); white-space: pre-wrap; overflow-wrap: anywhere; }
.answers { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(230px, 100%), 1fr)); gap: 10px; }
.answer { border: 1px solid var(--line); border-radius: 6px; padding: 8px 10px; min-width: 0; break-inside: avoid; }
.answer .who { display: block; color: var(--soft); font-size: 12px; margin-bottom: 2px; }
.answer bdi { display: block; white-space: pre-wrap; overflow-wrap: anywhere; }
.given { color: var(--soft); } .cut { color: var(--warn); }
.k { border-radius: 2px; padding-bottom: 1px; -webkit-box-decoration-break: clone; box-decoration-break: clone; }
.u1 { background: var(--up1); border-bottom: 1px solid var(--s1); }
.u2 { background: var(--up2); border-bottom: 2px solid var(--s1); }
.u3 { background: var(--up3); border-bottom: 3px solid var(--s1); }
.d1 { background: var(--down1); border-bottom: 1px dotted var(--s2); }
.d2 { background: var(--down2); border-bottom: 2px dotted var(--s2); }
.d3 { background: var(--down3); border-bottom: 3px dotted var(--s2); }
.key { font-size: 13px; color: var(--soft); margin: 6px 0; line-height: 2; max-width: none; }
.key .k { color: var(--ink); }
.failed { border-left: 4px solid var(--bad); background: var(--bad-page); padding: 8px 12px; border-radius: 4px;
  overflow-wrap: anywhere; }
svg .cloud { opacity: .55; }
details { margin-top: 12px; } summary { cursor: pointer; color: var(--soft); }
pre { overflow-x: auto; font: 12.5px/1.5 ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; margin: 8px 0; }
footer { color: var(--soft); font-size: 13px; margin-top: 24px; }
@media (max-width: 600px) { main { padding: 14px 10px 40px; } section { padding: 12px 12px 14px; }
  h1 { font-size: 22px; }
  .verdict .call { font-size: 19px; } .note { display: block; margin-left: 0; }
  summary { padding: 4px 0; }
  .cards thead { display: none; } .cards, .cards tbody, .cards tr, .cards td { display: block; }
  .cards tr { border-bottom: 1px solid var(--line); padding: 6px 0; }
  .cards td, .cards td.number { border: 0; padding: 1px 0; text-align: left; white-space: normal; }
  .cards td:first-child { font-weight: 600; } .cards td:empty { display: none; }
  .cards td[data-label]::before { content: attr(data-label); color: var(--soft); font-size: 12.5px; font-weight: 400;
    display: inline-block; min-width: 84px; margin-right: 8px; } }
@media print { :root { color-scheme: light; @PAPER@ }
  body { font-size: 10.5pt; } main { max-width: none; padding: 0; } nav { display: none; }
  section { border: 0; border-top: 1px solid var(--line); border-radius: 0; padding: 10px 0; }
  .charts { grid-template-columns: repeat(2, 1fr); } pre { white-space: pre-wrap; } h2, h3 { break-after: avoid; }
  .numbers { display: none; } .k { -webkit-print-color-adjust: exact; print-color-adjust: exact; }
  tr, .prompt { break-inside: avoid; }
  p.note, .key { break-after: avoid; } .prompt { break-after: avoid; } .scroll { overflow: visible; } }
""".replace("@PAPER@", _root(PAPER))
