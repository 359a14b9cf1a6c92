"""The report's lineage: which model, data and stage fed which, by content. Torch-free.

A stage remembers what it read by sha256. Where a stage that it names has other outputs now, that is said.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from trimtab.pipeline.manifest import digest
from trimtab.pipeline.report_axes import LETTER, cut, r, svg
from trimtab.pipeline.report_files import RunFiles, StageFiles, mapping
from trimtab.pipeline.report_page import Raw, badge, el, missing, section, table

_BOX, _TALL, _GAP, _PITCH = 168.0, 40.0, 44.0, 54.0


@dataclass(frozen=True)
class Fed:
    """One input of one stage: its key, the name of what it is, its kind (stage, model, data, ...), and its sha256."""

    stage: str
    key: str
    name: str
    kind: str
    sha256: str


def inputs_of(stage: StageFiles) -> list[Fed]:
    """What a stage's manifest says that it read."""
    found = []
    for key, value in mapping(stage.manifest.get("inputs")).items():
        entry = mapping(value)
        kinds = {"stage": "stage", "rows": "data", "load": "model"}
        field = next((name for name in kinds if entry.get(name)), None)
        name = str(entry[field]) if field else str(next(iter(entry.values()), value) if entry else value)
        found.append(Fed(stage.name, str(key), name, kinds.get(field or "", "other"), str(entry.get("sha256") or "")))
    return found


def lineage_section(run: RunFiles) -> Raw:
    """A picture, and a table with every hash."""
    edges = [edge for stage in run.stages for edge in inputs_of(stage)]
    if not edges:
        return section("Lineage", missing("no stage has written what it read (yet)"), anchor="lineage")
    outputs = {stage.name: _output(stage) for stage in run.stages}
    rows = []
    for edge in edges:
        same: Any = ""
        if edge.kind == "stage" and outputs.get(edge.name):
            good = outputs[edge.name] == edge.sha256
            same = badge("as it left it", "good") if good else badge("has other outputs now", "bad")
        rows.append([edge.stage, edge.key, edge.name, edge.kind, el("code", edge.sha256 or "no hash"), same])
    head = ["stage", "reads as", "what", "kind", "sha256 of its content", ""]
    hashes = el("details", el("summary", "every input by its content"), table(head, rows))
    return section("Lineage", _picture(run, edges), hashes, anchor="lineage")


def _output(stage: StageFiles) -> str:
    """The sha256 by which a reader knows a finished stage's model."""
    outputs = mapping(stage.manifest.get("outputs"))
    return digest(dict(outputs)) if outputs and stage.status == "finished" else ""


def _picture(run: RunFiles, edges: list[Fed]) -> Raw:
    """Boxes in columns: what no stage made at the left, each stage to the right of all that it reads."""
    column: dict[str, int] = {f"{e.kind}:{e.name}": 0 for e in edges if e.kind != "stage"}
    kinds = {stage.name: stage.kind for stage in run.stages}
    for _ in kinds:  # as many rounds as the longest chain can have
        for name in kinds:
            reads = [column.get(_node(e), 0) for e in edges if e.stage == name]
            if reads:
                column[f"stage:{name}"] = 1 + max(reads)
    most = max(column.values())
    places, filled = {}, [0] * (most + 1)
    hashes = {_node(e): e.sha256 for e in edges}
    for node, at in sorted(column.items(), key=lambda item: item[1]):
        places[node] = (1 + at * (_BOX + _GAP), 1 + filled[at] * _PITCH)
        filled[at] += 1
    parts: list[Raw] = []
    for edge in edges:
        start, end = places.get(_node(edge)), places.get(f"stage:{edge.stage}")
        if start and end:
            parts.append(_arrow(start, end))
    for node, (x, y) in places.items():
        kind, _, name = node.partition(":")
        what = kinds.get(name, "") if kind == "stage" else kind
        second = " · ".join(text for text in (what, hashes.get(node, "")[:8]) if text)
        kind_of_box = "box stage" if kind == "stage" else "box"
        parts.append(el("rect", x=r(x), y=r(y), width=_BOX, height=_TALL, rx=6, class_=kind_of_box))
        letters = int((_BOX - 14) / LETTER)
        parts.append(
            el("text", cut(name.rsplit("/", 1)[-1], int(letters / 1.2)), x=r(x + 8), y=r(y + 17), class_="name")
        )
        parts.append(el("text", cut(second, letters), x=r(x + 8), y=r(y + 33)))
    width, height = (most + 1) * _BOX + most * _GAP + 2, max(filled) * _PITCH
    picture = svg(parts, height, "Lineage: what each stage read", width)
    return el("div", Raw(picture.replace("<svg ", f'<svg width="{r(width)}" ', 1)), class_="scroll wide", tabindex="0")


def _node(edge: Fed) -> str:
    return f"{edge.kind}:{edge.name}"


def _arrow(start: tuple[float, float], end: tuple[float, float]) -> Raw:
    x1, y1, x2, y2 = start[0] + _BOX, start[1] + _TALL / 2, end[0] - 6, end[1] + _TALL / 2
    bend = x2 - _GAP / 2 + 2
    line = el("path", d=f"M{r(x1)} {r(y1)}L{r(bend - 14)} {r(y1)}L{r(bend)} {r(y2)}L{r(x2)} {r(y2)}", class_="edge")
    tip = el("path", d=f"M{r(x2 + 6)} {r(y2)}l-7 -4v8Z", class_="arrow")
    return el("g", line, tip)


def described(run: RunFiles) -> Mapping[str, str]:
    """``stage.key`` -> name and hash, for comparing runs."""
    return {f"{e.stage}.{e.key}": f"{e.name} {e.sha256[:12]}".strip() for s in run.stages for e in inputs_of(s)}
