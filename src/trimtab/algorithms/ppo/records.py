"""What PPO leaves for people and reports: a ledger of rollouts, and the same prompts answered at several versions."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence as Seq
from pathlib import Path

from trimtab.algorithms.ppo.config import PPOConfig
from trimtab.algorithms.ppo.experience import Experience
from trimtab.protocols import Sampler, SamplingParams, StreamKey, TokenPrompt
from trimtab.records import Completion
from trimtab.runtime.files import Ledger, write_atomic


def record_rollout(ledger: Ledger, version: int, completions: Seq[Completion], made: Experience) -> None:
    """One row per answer: what was sampled from which version, its raw score and its shaped reward.

    A null score: not scored. A null reward: not learned from.
    """
    for completion, score, reward in zip(completions, made.score_N.tolist(), made.reward_N.tolist(), strict=True):
        ledger.append(
            {
                "version": version,
                "prompt_id": completion.prompt_id,
                "sample": completion.sample,
                "ids": list(completion.ids),
                "logp": sum(completion.logps),
                "finish": completion.finish,
                "score": None if math.isnan(score) else score,
                "reward": None if math.isnan(reward) else reward,
                "text": completion.text,
            }
        )


class Showcase:
    """Answers of several versions to the same held-out prompts, one file per version under ``samples/``."""

    def __init__(
        self,
        sampler: Sampler,
        prompts: Seq[TokenPrompt],
        decode: Callable[[Seq[int]], str],
        config: PPOConfig,
        folder: Path,
        seed: int,
        stage: str,
    ) -> None:
        self.sampler, self.prompts, self.decode, self.config = sampler, prompts, decode, config
        self.folder, self.seed, self.stage = folder, seed, stage

    def due(self, version: int) -> bool:
        """Whatever files there are: a start that goes back to an older version writes those after it anew."""
        part = self.config.samples
        if part is None or not self.prompts:
            return False
        return version % part.every == 0 or version == self.config.versions

    def show(self, version: int) -> None:
        """Sample and write; every version uses the same random stream, so differences come from the weights."""
        rollout = self.config.rollout
        params = SamplingParams(rollout.max_new_tokens, rollout.temperature)
        made = self.sampler.sample(self.prompts, params, StreamKey(self.seed, f"{self.stage}/samples"))
        lines = [
            json.dumps(
                {
                    "version": version,
                    "prompt_id": answer.prompt_id,
                    "prompt": self.decode(answer.prompt_ids),
                    "text": answer.text,
                    "finish": answer.finish,
                    "tokens": len(answer.ids),
                },
                ensure_ascii=False,
            )
            for answer in made
        ]
        self.folder.mkdir(exist_ok=True)
        write_atomic(self.folder / f"{version}.jsonl", "\n".join(lines) + "\n")
