"""Answers side by side: several versions of one policy, or the two models of an evaluation. Torch-free."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from trimtab.pipeline.report_files import Row, listing, mapping, number
from trimtab.pipeline.report_page import Raw, el, missing, short
from trimtab.pipeline.report_tokens import key, shaded

_COLUMNS = 4
_PROMPTS = 8
_PAIRS = 6
_EXTREMES = 3
_LONGEST = 1500
"""Characters of one text that are shown; the files have the rest."""


def versions_side_by_side(samples: Mapping[int, Sequence[Row]]) -> Raw:
    """The first prompts, answered by at most four versions: the first, the last, and evenly between."""
    if not samples:
        return missing("no samples were written")
    chosen = spread(sorted(samples), _COLUMNS)
    prompts = list(dict.fromkeys(str(row.get("prompt_id")) for version in chosen for row in samples[version]))
    by_key = {(v, str(row.get("prompt_id"))): row for v in chosen for row in samples[v]}
    blocks: list[Raw] = []
    for prompt in prompts[:_PROMPTS]:
        rows = {version: by_key.get((version, prompt)) for version in chosen}
        known = next(row for row in rows.values() if row is not None)
        asked = str(known.get("prompt", ""))
        blocks.append(el("div", _shown(asked), class_="prompt"))
        cards = [
            _card(f"version {version}", row, asked)
            if row
            else el("div", missing(f"version {version}: none"), class_="answer")
            for version, row in rows.items()
        ]
        blocks.append(el("div", *cards, class_="answers"))
    said = f"{len(chosen)} of {len(samples)} versions, {min(len(prompts), _PROMPTS)} of {len(prompts)} prompts."
    told = any(listing(row.get("log_ratio")) for version in chosen for row in samples[version])
    legend = key() if told else missing("log-ratios of the tokens: not recorded, so nothing is shaded")
    return el("div", el("p", said, " Every version used the same random numbers.", class_="note"), legend, *blocks)


def pairs_side_by_side(pairs: Sequence[Row], names: tuple[str, str]) -> Raw:
    """The first pairs of an evaluation, unchosen; then those whose first instrument differs most, either way."""
    if not pairs:
        return missing("no answers were written")
    parts = [el("p", f"The first {min(_PAIRS, len(pairs))} of {len(pairs)} prompts, not chosen.", class_="note")]
    parts += [_pair(row, names) for row in pairs[:_PAIRS]]
    instrument = next(iter(mapping(mapping(pairs[0].get("candidate")).get("scores"))), None)
    gains = sorted(((gain(row, instrument), i) for i, row in enumerate(pairs)), key=lambda g: (-(g[0] or 0.0), g[1]))
    gains = [(g, i) for g, i in gains if g]
    if instrument is not None and gains:
        extreme = [i for g, i in gains if g > 0][:_EXTREMES] + [i for g, i in gains if g < 0][-_EXTREMES:]
        summary = el("summary", f"Largest gains and losses by {instrument}")
        parts.append(el("details", summary, *[_pair(pairs[i], names) for i in extreme]))
    return el("div", *parts)


def gain(row: Row, instrument: str | None) -> float | None:
    """Candidate's score minus the other's, or None where either has none."""
    mine, theirs = (
        number(mapping(mapping(row.get(side)).get("scores")).get(str(instrument))) for side in ("candidate", "against")
    )
    return None if mine is None or theirs is None else mine - theirs


def spread(items: Sequence[int], most: int) -> list[int]:
    """At most ``most`` items, the first and last among them, the others evenly between."""
    if len(items) <= most:
        return list(items)
    return [items[round(i * (len(items) - 1) / (most - 1))] for i in range(most)]


def _pair(row: Row, names: tuple[str, str]) -> Raw:
    cards = []
    for name, side in ((names[1], "against"), (names[0], "candidate")):
        answer = mapping(row.get(side))
        scores = [f"{key} {short(number(value), sign=True)}" for key, value in mapping(answer.get("scores")).items()]
        cards.append(_card(" · ".join([name, *scores]), answer, ""))
    return el("div", el("div", _shown(row.get("prompt_id", "")), class_="prompt"), el("div", *cards, class_="answers"))


def _card(who: str, row: Mapping[str, Any], asked: str) -> Raw:
    """One answer. The part of it that the prompt already held (a prefill) is set back."""
    text = str(row.get("text", ""))
    kept = overlap(asked, text)
    facts = [who]
    if number(row.get("score")) is not None:
        facts.append(f"score {short(number(row.get('score')), sign=True)}")
    if number(row.get("kl")) is not None:
        facts.append(f"KL {short(number(row.get('kl')))} nats")
    if number(row.get("tokens")) is not None:
        facts.append(f"{short(number(row.get('tokens')))} tokens")
    cut = el("span", " … cut off at the limit", class_="cut") if row.get("finish") == "length" else None
    given = el("span", text[:kept], class_="given") if kept else None
    tokens = shaded(row, _LONGEST)
    rest = _shown(text[kept:]) if text else el("span", "(empty)", class_="missing")
    body = el("bdi", given, rest if tokens is None else tokens, cut)
    return el("div", el("span", " · ".join(facts), class_="who"), body, class_="answer")


def overlap(asked: str, text: str) -> int:
    """Characters at the start of ``text`` with which ``asked`` ends."""
    most = min(len(asked), len(text), _LONGEST)
    return next((n for n in range(most, 0, -1) if asked.endswith(text[:n])), 0)


def _shown(text: Any) -> str:
    text = str(text)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} … ({len(text) - _LONGEST} more characters)"
