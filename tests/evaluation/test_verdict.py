from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest

from trimtab.evaluation.config import Bounds
from trimtab.evaluation.verdict import Answers, Verdict, decide

N = 100
NOISE = np.random.default_rng(0).normal(0, 0.1, size=(2, N))


def answers(**shift: float) -> Answers:
    """100 answers of 20 tokens, none truncated, perplexity e², all bigrams of an answer distinct."""
    return Answers(
        scores={name: (NOISE[i] + by).tolist() for i, (name, by) in enumerate(shift.items())},
        nll=[40.0] * N,
        ids=[list(range(30 * i, 30 * i + 19)) for i in range(N)],
        tokens=[20] * N,
        truncated=[False] * N,
    )


BASE = answers(vader=0.0, ridge=0.0)
BETTER = answers(vader=0.3, ridge=0.2)


def judge(
    candidate: Answers = BETTER, against: Answers = BASE, kl: float = 4.0, bounds: Bounds | None = None
) -> Verdict:
    return decide(candidate, against, [kl] * N, bounds or Bounds(), names=("policy", "sft"), resamples=300)


def shifted(*by: tuple[float, float]) -> Answers:
    """Scores of two instruments, each with a mean difference and a noise of its own."""
    rng = np.random.default_rng(1)
    scores = {
        name: (np.array(BASE.scores[name], dtype=float) + mean + rng.normal(0, noise, N)).tolist()
        for name, (mean, noise) in zip(("vader", "ridge"), by, strict=True)
    }
    return replace(BASE, scores=scores)


def test_a_gain_within_bounds_passes() -> None:
    verdict = judge()
    assert verdict.passed and verdict.direction == "better" and not verdict.broken
    assert [check.holds for check in verdict.checks] == [True] * 5
    assert {check.name: check.value for check in verdict.checks} == {
        "kl": 4.0, "perplexity": 1.0, "distinct_2": 1.0, "length": 1.0, "truncated": 0.0
    }  # fmt: skip
    assert [i.difference.mean for i in verdict.instruments] == pytest.approx([0.3, 0.2])


@pytest.mark.parametrize(
    ("by", "direction"),
    [
        (((0.5, 0.1), (0.5, 0.1)), "better"),
        (((-0.5, 0.1), (-0.4, 0.1)), "worse"),
        (((0.5, 0.1), (-0.4, 0.1)), "mixed"),
        (((-0.5, 0.1), (0.4, 0.1)), "mixed"),
    ],
)
def test_directions(by: tuple[tuple[float, float], tuple[float, float]], direction: str) -> None:
    verdict = judge(shifted(*by))
    assert verdict.direction == direction
    assert verdict.passed == (direction == "better")


def test_one_clear_instrument_suffices_only_if_the_other_agrees_in_sign() -> None:
    noise = np.random.default_rng(4).normal(0, 1.0, N)
    noise -= noise.mean()
    for mean, direction in ((0.01, "better"), (-0.01, "mixed")):
        weak = (np.array(BASE.scores["ridge"], dtype=float) + mean + noise).tolist()
        verdict = judge(replace(BASE, scores={"vader": BETTER.scores["vader"], "ridge": weak}))
        assert verdict.instruments[1].difference.low < 0 < verdict.instruments[1].difference.high
        assert verdict.direction == direction


def test_no_clear_instrument_is_undecided_whatever_the_signs() -> None:
    noise = np.random.default_rng(4).normal(0, 1.0, N)
    noise -= noise.mean()
    for mean in (0.01, -0.01):
        scores = {name: (np.array(v, dtype=float) + mean + noise).tolist() for name, v in BASE.scores.items()}
        verdict = judge(replace(BASE, scores=scores))
        assert verdict.direction == "undecided" and not verdict.passed
        assert "no instrument tells policy and sft apart" in verdict.lines()[2]


def cut(share: float) -> Answers:
    return replace(BETTER, truncated=[i < share * N for i in range(N)])


@pytest.mark.parametrize(
    ("name", "inside", "outside"),
    [
        ("kl", judge(kl=8.0), judge(kl=8.1)),
        (
            "perplexity",
            judge(replace(BETTER, nll=[20 * (2 + math.log(1.49))] * N)),
            judge(replace(BETTER, nll=[20 * (2 + math.log(1.51))] * N)),
        ),
        (
            "distinct_2",
            judge(replace(BETTER, ids=[BETTER.ids[max(i, 9)] for i in range(N)])),  # 91 different answers
            judge(replace(BETTER, ids=[BETTER.ids[max(i, 11)] for i in range(N)])),  # 89
        ),
        ("length", judge(replace(BETTER, tokens=[24] * N)), judge(replace(BETTER, tokens=[25] * N))),
        (
            "length",
            judge(replace(BETTER, tokens=[16] * N, nll=[32.0] * N)),
            judge(replace(BETTER, tokens=[15] * N, nll=[30.0] * N)),
        ),
        ("truncated", judge(cut(0.10)), judge(cut(0.11))),
    ],
)
def test_each_bound_alone_decides(name: str, inside: Verdict, outside: Verdict) -> None:
    assert inside.passed
    assert [check.name for check in outside.broken] == [name]
    assert not outside.passed and outside.direction == "better"
    assert "BROKEN" in outside.lines()[1] and "BROKEN" not in inside.lines()[1]
    assert outside.lines()[2].startswith("NOT PASSED: policy scores above sft")
    assert "out of bounds" in outside.lines()[2]


def test_bounds_left_out_are_not_checked_but_shown() -> None:
    verdict = judge(kl=50.0, bounds=Bounds(None, None, None, None, None))
    assert verdict.passed and [check.holds for check in verdict.checks] == [None] * 5
    assert "KL 50.00 nats per answer (no bound)" in verdict.lines()[1]
    assert verdict.lines()[2].endswith("no bound was set")


def test_three_lines_say_what_happened() -> None:
    gain, cost, end = judge().lines()
    assert gain.startswith("policy - sft on 100 held-out prompts (95 % interval): vader +0.300 [+0.300, +0.300], ridge")
    assert cost == (
        "cost: KL 4.00 nats per answer (≤ 8), perplexity ×1.00 (≤ ×1.5), distinct-2 ×1.00 (≥ ×0.9), "
        "length +0 % (±20 %), truncated answers 0.0 % (≤ 10 %)"
    )
    assert end == "PASSED: policy scores above sft, and all instruments agree in sign; all bounds hold"
    worse = judge(candidate=BASE, against=BETTER).lines()
    assert "vader -0.300" in worse[0] and worse[2].startswith("NOT PASSED: policy scores BELOW sft")
    assert all("\n" not in line for line in (gain, cost, end, *worse))


def test_unscored_prompts_are_left_out_and_counted() -> None:
    holes = [None if i in (3, 8) else s for i, s in enumerate(BETTER.scores["vader"])]
    other = [None if i in (8, 9) else s for i, s in enumerate(BASE.scores["vader"])]
    verdict = judge(replace(BETTER, scores={"vader": holes}), replace(BASE, scores={"vader": other}))
    instrument = verdict.instruments[0]
    assert (instrument.unscored, instrument.difference.n) == (3, 97)
    assert "3 prompts unscored" in verdict.lines()[0]
    with pytest.raises(ValueError, match="'vader' scored no prompt"):
        judge(replace(BETTER, scores={"vader": [None] * N}), replace(BASE, scores={"vader": other}))


def test_what_cannot_be_computed_holds_no_bound() -> None:
    verdict = judge(replace(BETTER, ids=[[1]] * N))
    assert [check.name for check in verdict.broken] == ["distinct_2"]
    plain = json.loads(json.dumps(verdict.as_dict(), allow_nan=False))
    assert plain["checks"][2]["value"] is None and plain["passed"] is False and len(plain["lines"]) == 3
    assert judge(kl=math.nan).broken[0].name == "kl"


def test_the_perplexity_bound_is_on_tokens_of_all_answers() -> None:
    long = replace(BETTER, tokens=[10] * 50 + [30] * 50, nll=[10.0] * 50 + [90.0] * 50)
    check = judge(long).checks[1]
    assert check.candidate == pytest.approx(math.exp(5000 / 2000)) and check.against == pytest.approx(math.exp(2))


def test_refusals() -> None:
    with pytest.raises(ValueError, match="instruments"):
        judge(replace(BETTER, scores={"vader": BETTER.scores["vader"]}))
    with pytest.raises(ValueError, match="instruments"):
        judge(replace(BETTER, scores={}), replace(BASE, scores={}))
    with pytest.raises(ValueError, match="99 KLs"):
        decide(BETTER, BASE, [1.0] * 99, Bounds())
    with pytest.raises(ValueError, match="'tokens': 99"):
        replace(BETTER, tokens=[20] * 99)
