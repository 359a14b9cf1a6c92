"""What PPO leaves for the report: pieces of text by token, values beside returns, distances to the reference."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any, cast

import pytest
import torch

import toys
from algorithms.handmade import END, Book, answer, config, prepared
from trimtab.algorithms.ppo.config import Complete, Exclude, PPOConfig, SamplesConfig
from trimtab.algorithms.ppo.experience import beside_reference
from trimtab.algorithms.ppo.records import Showcase, pieces, record_critic, record_rollout
from trimtab.models.bundle import Bundle
from trimtab.records import Completion
from trimtab.runtime.files import Ledger

BYTES = {1: b"Gr", 2: b"\xc3", 3: b"\xbc", 4: b"n", 5: b" wie", 6: b"", 7: b"\xe2\x82"}


def text(ids: Any) -> str:
    """A tokenizer whose tokens may be part of a character."""
    return b"".join(BYTES[i] for i in ids).decode("utf-8", "replace")


@pytest.mark.parametrize(
    ("ids", "prefill", "told"),
    [
        ((1, 2, 3, 4, 5, 6), 0, ["Gr", "", "ü", "n", " wie", ""]),
        ((1, 2, 3, 4), 2, ["", "n"]),  # the prompt ends within a character: what it lacks is told nowhere
        ((4, 7), 0, ["n", "\ufffd"]),  # cut off within a character
    ],
)
def test_pieces_of_an_answer(ids: tuple[int, ...], prefill: int, told: list[str]) -> None:
    prompt, sampled = ((9, *ids[:prefill]), ids[prefill:]) if prefill else ((9,), ids)
    made = Completion("p", 0, prompt, sampled, (0.0,) * len(sampled), "length")
    assert pieces(made, prefill, text) == told
    assert prefill or "".join(told) == text(sampled)


def test_the_ledger_of_rollouts_has_each_answers_distance(tmp_path: Path) -> None:
    rollout = [answer(3, END, id="short"), answer(4, 6, 5, END, id="long")]
    made = prepared(Book({3: 1.0, 5: 3.0}), rollout, config())
    with Ledger(tmp_path / "rollouts.jsonl") as ledger:
        record_rollout(ledger, 0, rollout, made)
    rows = [json.loads(line) for line in (tmp_path / "rollouts.jsonl").read_text().splitlines()]
    # log π - log π_ref: 3 -> 0.5, END -> -0.25; 4 -> 0, 6 -> -0.5, 5 -> 1
    assert [row["kl"] for row in rows] == [0.25, 0.25]
    assert made.metrics["kl/reference_k1"] == pytest.approx(0.25)


def test_the_critic_is_held_against_what_came(tmp_path: Path) -> None:
    rollout = [answer(3, END, id="a"), answer(5, 3, END, id="b")]
    made = prepared(Book({3: 2.0}), rollout, config())  # no KL: every return is the score, 2
    with Ledger(tmp_path / "critic.jsonl") as ledger:
        record_critic(ledger, 4, made)
    row = json.loads((tmp_path / "critic.jsonl").read_text())
    assert row["version"] == 4 and row["pretraining"] is False
    # values before the actions: a: 0.5 (prompt), 0.25 (3); b: 0.5, 1.0 (5), 0.25 (3)
    assert [(b["n"], b["value"], b["return"]) for b in row["by_value"]] == [
        (2, 0.25, 2.0),
        (2, 0.5, 2.0),
        (1, 1.0, 2.0),
    ]
    assert [(b["from"], b["to"], b["n"]) for b in row["by_position"]] == [(0, 0, 2), (1, 1, 2), (2, 2, 1)]
    assert [b["value"] for b in row["by_position"]] == [0.5, 0.625, 0.25]


def test_answers_beside_the_reference() -> None:
    rollout = [answer(3, END, id="ended"), answer(4, 5, id="cut")]
    found = beside(Book({3: 1.5}), rollout, config(truncated=Exclude()))
    assert [row["log_ratio"] for row in found] == [[0.5, -0.25], [0.0, 1.0]]
    assert [row["kl"] for row in found] == [0.25, 1.0]
    assert [row["score"] for row in found] == [1.5, None], "a truncated answer is not scored unless it is completed"
    found = beside(Book({3: 1.5, 5: 2.5}), rollout, config(truncated=Complete()))
    assert [row["score"] for row in found] == [1.5, 2.5] and [len(row["log_ratio"]) for row in found] == [2, 2]


def beside(book: Book, rollout: list[Completion], settings: PPOConfig) -> list[dict[str, Any]]:
    return beside_reference(cast(Bundle, book), rollout, settings, end_id=END, text_scores=None)


def test_samples_carry_score_and_distance_and_change_no_weight(tmp_path: Path) -> None:
    bundle = toys.bundle_of()
    settings = toys.ppo_config(samples=SamplesConfig(2, 1), truncated=Complete())
    algorithm = toys.ppo(bundle, settings)
    before = toys.weights(algorithm)

    def judge(answers: Any) -> Any:
        return beside_reference(bundle, answers, settings, end_id=toys.END, text_scores=toys.likes_five)

    sampler: Any = algorithm.sampler
    show = Showcase(sampler, toys.prompts()[:2], sampler.decode, settings, tmp_path / "s", 1, "ppo", judge)
    state = torch.random.get_rng_state()
    show.show(0)
    assert torch.equal(state, torch.random.get_rng_state())
    rows = [json.loads(line) for line in (tmp_path / "s" / "0.jsonl").read_text().splitlines()]
    assert len(rows) == 2
    for row in rows:
        assert len(row["log_ratio"]) == len(row["pieces"]) == row["tokens"] and math.isfinite(row["score"])
        assert row["log_ratio"] == [0.0] * row["tokens"], "the reference is the policy that has learned nothing"
    assert all(torch.equal(value, before[name]) for name, value in toys.weights(algorithm).items())
    first = (tmp_path / "s" / "0.jsonl").read_bytes()
    show.show(0)
    assert (tmp_path / "s" / "0.jsonl").read_bytes() == first
