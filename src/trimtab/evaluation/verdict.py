"""Did the candidate gain, at what cost, and is that within what was agreed on beforehand?

A gain counts if, of the instruments (scorers that took no part in training), at least one has its paired interval above
0 and every other mean is above 0 too. It passes if every bound on its cost holds besides. All of it is decided by
``decide`` from per-prompt numbers; nothing here samples or scores.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from trimtab.evaluation.bootstrap import PairedDifference, paired_difference
from trimtab.evaluation.config import Bounds
from trimtab.evaluation.text import distinct_n, perplexity

Direction = Literal["better", "worse", "mixed", "undecided"]
"""``better``: as above. ``worse``: its mirror image. ``mixed``: an interval excludes 0 but the instruments differ in
sign. ``undecided``: no interval excludes 0."""


@dataclass(frozen=True)
class Answers:
    """One model's answers to the held-out prompts, one entry per prompt, prompts in the same order for both models.

    Attributes:
        scores: instrument -> score per prompt; None = this instrument could not score it.
        nll: Σ -log p of the response tokens under the model compared *with* (``against``), nats.
        ids: sampled token ids without the end token, for distinct-2.
        tokens: response tokens, end token included; the sums ``nll`` are over these.
        truncated: reached ``max_new_tokens``.
    """

    scores: Mapping[str, Sequence[float | None]]
    nll: Sequence[float]
    ids: Sequence[Sequence[Hashable]]
    tokens: Sequence[int]
    truncated: Sequence[bool]

    def __post_init__(self) -> None:
        sizes = {name: len(values) for name, values in self.scores.items()}
        sizes |= {"nll": len(self.nll), "ids": len(self.ids), "tokens": len(self.tokens)}
        sizes["truncated"] = len(self.truncated)
        if len(set(sizes.values())) != 1 or not self.tokens:
            raise ValueError(f"answers need one entry per prompt everywhere, and at least one; given: {sizes}")


@dataclass(frozen=True)
class Instrument:
    """One instrument's paired difference. ``unscored`` prompts lack a score on either side and are not in it."""

    name: str
    difference: PairedDifference
    unscored: int


@dataclass(frozen=True)
class Check:
    """One bound: ``value`` as it is compared with ``bound``. ``holds`` is None where nothing was asked.

    Attributes:
        name: ``kl``, ``perplexity``, ``distinct_2``, ``length`` or ``truncated``, as in ``Bounds``.
        value: kl in nats per answer; perplexity, distinct_2, length as multiples of ``against``'s; truncated a share.
        bound: the key of ``Bounds``; null = not checked.
        candidate, against: the absolute numbers behind it (None: only the candidate has one).
    """

    name: str
    value: float
    bound: float | None
    holds: bool | None
    candidate: float
    against: float | None = None


@dataclass(frozen=True)
class Verdict:
    """What the comparison says.

    Attributes:
        candidate, against: names, for people.
        prompts: held-out prompts compared.
        instruments: paired differences, candidate - against.
        checks: costs and their bounds.
    """

    candidate: str
    against: str
    prompts: int
    instruments: tuple[Instrument, ...]
    checks: tuple[Check, ...]

    @property
    def direction(self) -> Direction:
        """Which way the instruments went."""
        found = [i.difference for i in self.instruments]
        if not any(d.low > 0 or d.high < 0 for d in found):
            return "undecided"
        if all(d.mean > 0 for d in found):
            return "better"
        return "worse" if all(d.mean < 0 for d in found) else "mixed"

    @property
    def broken(self) -> tuple[Check, ...]:
        """Bounds that do not hold."""
        return tuple(check for check in self.checks if check.holds is False)

    @property
    def passed(self) -> bool:
        """A gain, and every bound holds."""
        return self.direction == "better" and not self.broken

    def lines(self) -> tuple[str, str, str]:
        """Gain, cost and conclusion, one line each, saying which way it went."""
        gains = ", ".join(_gain(i) for i in self.instruments)
        costs = ", ".join(_cost(check) for check in self.checks)
        return (
            f"{self.candidate} - {self.against} on {self.prompts} held-out prompts (95 % interval): {gains}",
            f"cost: {costs}",
            f"{'PASSED' if self.passed else 'NOT PASSED'}: {self._conclusion()}",
        )

    def _conclusion(self) -> str:
        said = {
            "better": f"{self.candidate} scores above {self.against}, and all instruments agree in sign",
            "worse": f"{self.candidate} scores BELOW {self.against}, and all instruments agree in sign",
            "mixed": f"the instruments disagree on whether {self.candidate} or {self.against} is better",
            "undecided": f"no instrument tells {self.candidate} and {self.against} apart",
        }[self.direction]
        if self.broken:
            return f"{said}; out of bounds: {', '.join(_WORDS[check.name] for check in self.broken)}"
        if not any(check.holds for check in self.checks):
            return f"{said}; no bound was set"
        return f"{said}; all bounds hold"

    def as_dict(self) -> dict[str, Any]:
        """JSON-able: fields, ``direction``, ``passed`` and ``lines``; a number that is not finite becomes null."""
        fields = asdict(self) | {"direction": self.direction, "passed": self.passed, "lines": self.lines()}
        return {key: _finite_or_none(value) for key, value in fields.items()}


def decide(
    candidate: Answers,
    against: Answers,
    kl: Sequence[float],
    bounds: Bounds,
    *,
    names: tuple[str, str] = ("candidate", "against"),
    resamples: int = 10000,
    seed: int = 0,
) -> Verdict:
    """Compares two models' answers to the same prompts.

    Args:
        candidate: the model under test.
        against: what it is compared with.
        kl: per answer of the candidate, Σ over response tokens of log π - log π_against, nats (its mean is an
            unbiased estimate, k1, of the KL per answer).
        bounds: what a gain may cost.
        names: how to call the two.
        resamples, seed: of the paired bootstrap; every instrument is resampled alike.

    Raises:
        ValueError: different instruments or numbers of prompts, no instrument, or one without any pair of scores.
    """
    if not candidate.scores or set(candidate.scores) != set(against.scores):
        raise ValueError(f"instruments of the candidate {sorted(candidate.scores)}, to pair: {sorted(against.scores)}")
    if not len(kl) == len(candidate.tokens) == len(against.tokens):
        raise ValueError(f"{len(kl)} KLs, {len(candidate.tokens)} and {len(against.tokens)} answers")
    instruments = tuple(
        _instrument(name, candidate.scores[name], against.scores[name], resamples, seed) for name in candidate.scores
    )
    return Verdict(*names, len(kl), instruments, _checks(candidate, against, kl, bounds))


def _instrument(
    name: str, mine: Sequence[float | None], theirs: Sequence[float | None], resamples: int, seed: int
) -> Instrument:
    pairs = [(a, b) for a, b in zip(mine, theirs, strict=True) if a is not None and b is not None]
    if not pairs:
        raise ValueError(f"instrument {name!r} scored no prompt for both models")
    difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs], resamples=resamples, seed=seed)
    return Instrument(name, difference, len(mine) - len(pairs))


def _checks(candidate: Answers, against: Answers, kl: Sequence[float], bounds: Bounds) -> tuple[Check, ...]:
    n = len(kl)
    nats = math.fsum(kl) / n
    surprise = perplexity(candidate.nll, candidate.tokens), perplexity(against.nll, against.tokens)
    variety = distinct_n(candidate.ids, 2), distinct_n(against.ids, 2)
    length = sum(candidate.tokens) / n, sum(against.tokens) / n
    cut = sum(map(bool, candidate.truncated)) / n, sum(map(bool, against.truncated)) / n
    worse, few, long = _ratio(*surprise), _ratio(*variety), _ratio(*length)
    off = abs(long - 1)
    return (
        Check("kl", nats, bounds.kl, _at_most(nats, bounds.kl), nats),
        Check("perplexity", worse, bounds.perplexity, _at_most(worse, bounds.perplexity), *surprise),
        Check("distinct_2", few, bounds.distinct_2, _at_least(few, bounds.distinct_2), *variety),
        Check("length", long, bounds.length, _at_most(off, bounds.length), *length),
        Check("truncated", cut[0], bounds.truncated, _at_most(cut[0], bounds.truncated), *cut),
    )


def _ratio(mine: float, theirs: float) -> float:
    return mine / theirs if theirs else math.nan


def _at_most(value: float, bound: float | None) -> bool | None:
    """A NaN holds no bound."""
    return None if bound is None else value <= bound + 1e-12


def _at_least(value: float, bound: float | None) -> bool | None:
    return None if bound is None else value >= bound - 1e-12


_WORDS = {
    "kl": "KL",
    "perplexity": "perplexity",
    "distinct_2": "distinct-2",
    "length": "length",
    "truncated": "truncated answers",
}


def _gain(instrument: Instrument) -> str:
    d = instrument.difference
    missing = f", {instrument.unscored} prompts unscored" if instrument.unscored else ""
    return f"{instrument.name} {d.mean:+.3f} [{d.low:+.3f}, {d.high:+.3f}]{missing}"


def _cost(check: Check) -> str:
    shown = {
        "kl": f"{check.value:.2f} nats per answer",
        "length": f"{100 * (check.value - 1):+.0f} %",
        "truncated": f"{100 * check.value:.1f} %",
    }.get(check.name, f"×{check.value:.2f}")
    if check.bound is None:
        return f"{_WORDS[check.name]} {shown} (no bound)"
    limit = {
        "kl": f"≤ {check.bound:g}",
        "perplexity": f"≤ ×{check.bound:g}",
        "distinct_2": f"≥ ×{check.bound:g}",
        "length": f"±{100 * check.bound:g} %",
        "truncated": f"≤ {100 * check.bound:g} %",
    }[check.name]
    return f"{_WORDS[check.name]} {shown} ({limit}{'' if check.holds else ', BROKEN'})"


def _finite_or_none(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite_or_none(v) for key, v in value.items()}
    return [_finite_or_none(v) for v in value] if isinstance(value, list | tuple) else value
