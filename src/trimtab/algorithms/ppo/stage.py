"""``kind: ppo`` as the pipeline runs it: policy, reference, critic and reward on one trunk or apart; fit; save."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from trimtab.algorithms.ppo.config import PPOConfig
from trimtab.algorithms.ppo.experience import Experience, TextScores
from trimtab.algorithms.ppo.ppo import PPO
from trimtab.algorithms.ppo.records import Showcase, record_rollout
from trimtab.batch import Sequence
from trimtab.data.template import Renderer
from trimtab.errors import ModelError, RecipeError
from trimtab.models.bundle import Bundle
from trimtab.models.export import save_lm
from trimtab.models.flat import Body
from trimtab.models.hydra import branch_of, trunk_of
from trimtab.models.load import LoadedLM, LoadedReward, load_lm, load_reward
from trimtab.models.trunk_store import with_trunk
from trimtab.protocols import ModelSpec, Scorer, TokenPrompt, ToScore
from trimtab.records import Completion, Demonstration, Prompt
from trimtab.runtime.files import Ledger
from trimtab.sampling.local import LocalSampler
from trimtab.scoring.named import scorer
from trimtab.train.fit import fit
from trimtab.train.session import device_of, loop_of, sidecar_of
from trimtab.train.stage import Result, StageContext


def _sidecar(folder: str) -> dict[str, Any]:
    file = Path(folder) / "trimtab.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def refuse_weak(folder: str, config: PPOConfig) -> str:
    """What to say of a reward model's held-out accuracy.

    Raises:
        ModelError: its interval does not clear the length baseline, or is unknown, and the recipe does not insist.
    """
    heldout = _sidecar(folder).get("heldout") or {}
    if heldout.get("clears_length"):
        return ""
    found = heldout.get("accuracy")
    what = (
        f"accuracy {found['share']:.3f} (95 % {found['low']:.3f}..{found['high']:.3f}), longer wins "
        f"{heldout['longer_wins']['share']:.3f}"
        if found
        else "held-out accuracy unknown"
    )
    if config.allow_weak_reward:
        return f"weak reward model allowed by the recipe: {what}"
    raise ModelError(
        f"reward model {config.reward} does not clear the length baseline: {what}",
        fix="train it on more or cleaner comparisons, or set allow_weak_reward: true",
    )


def same_tokens(policy: Renderer, reward: Renderer) -> None:
    """Refuse a reward model that would read the policy's ids as other text."""
    a, b = policy.tokenizer.get_vocab(), reward.tokenizer.get_vocab()
    shared = {token: i for token, i in b.items() if token in a}
    if any(a[token] != i for token, i in shared.items()) or len(shared) < len(a):
        raise ModelError(
            "policy and reward model have different tokenizers",
            fix="train the reward model from the policy's model",
        )


def _same_tensors(first: nn.Module, second: nn.Module) -> bool:
    a, b = dict(first.named_parameters()), dict(second.named_parameters())
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def add_reward(bundle: Bundle, reward: LoadedReward) -> bool:
    """The reward model as part ``reward``: its branch on the shared trunk if its trunk is the policy's, else whole.

    Returns True if the trunk is shared.
    """
    on_trunk = False
    body: Body = reward.body
    if bundle.trunk is not None and bundle.branch:
        depth = cast(int, body.decoder.config.num_hidden_layers)
        if depth == bundle.whole.decoder.config.num_hidden_layers:
            on_trunk = _same_tensors(trunk_of(body, bundle.branch), bundle.trunk)
        if on_trunk:
            body = branch_of(body, bundle.branch, copied=True)
    bundle.add_scalar("reward", "last", body=body, head=reward.head, trained=False, on_trunk=on_trunk)
    return on_trunk


def add_critic(bundle: Bundle, config: PPOConfig, seed: int) -> None:
    """Part ``value``, started as the recipe says."""
    if config.critic.start in ("reward", "reward-layers"):
        part = cast(Any, bundle.parts["reward"])
        head = nn.Linear(bundle.width, 1, bias=True, device=bundle.device)
        with torch.no_grad():
            head.weight.copy_(part.head.weight * (config.critic.start == "reward"))
            head.bias.zero_()
        body = copy.deepcopy(part.body)
        bundle.add_scalar("value", "prev", body=body, head=head, trained=True, on_trunk=part.on_trunk)
        return
    bundle.add_scalar("value", "prev", trained=True)
    if config.critic.start == "random":
        generator = torch.Generator().manual_seed(seed)
        head = cast(Any, bundle.parts["value"]).head
        with torch.no_grad():
            weight = torch.randn(head.weight.shape, generator=generator) / (bundle.width + 1) ** 0.5
            head.weight.copy_(weight)


def build(loaded: LoadedLM, spec: ModelSpec, config: PPOConfig, reward: LoadedReward | None, seed: int) -> Bundle:
    """All parts of a PPO stage in one bundle."""
    branch = spec.branch if config.sharing == "hydra" else None
    if config.sharing == "hydra" and branch is None:
        raise RecipeError("sharing: hydra needs a trunk", fix="give the model a branch, or use sharing: separate")
    bundle = Bundle(loaded.lm, loaded.mode, branch)
    bundle.add_policy()
    bundle.add_reference()
    if reward is not None:
        add_reward(bundle, reward)
    add_critic(bundle, config, seed)
    return bundle


def text_scores_of(chosen: Scorer, renderer: Renderer, prompts: dict[str, Prompt]) -> TextScores:
    """A scorer of texts as PPO calls it."""

    def score(completions: Seq[Completion]) -> list[float | None]:
        items = [
            ToScore(c.prompt_id, renderer.messages(prompts[c.prompt_id]), c.text, prompts[c.prompt_id].columns)
            for c in completions
        ]
        return chosen.score(items)

    return score


def ptx_rows_of(config: PPOConfig, context: StageContext, renderer: Renderer, bundle: Bundle) -> list[Sequence]:
    if config.ptx is None:
        return []
    rows = []
    for row in cast(list[Demonstration], context.rows(config.ptx.data)):
        ids, act = renderer.demonstration(row)
        rows.append(Sequence(ids=ids, act=act, id=row.id))
    return with_trunk(bundle, rows, config.train.token_budget)


def run(config: PPOConfig, context: StageContext) -> Result:
    spec, device = context.models["model"], device_of()
    loaded = load_lm(spec, device=str(device))
    renderer = Renderer(loaded.tokenizer, spec.template)
    reward, given, notes = None, None, []
    if "reward" in context.models:
        reward = load_reward(context.models["reward"], loaded.mode, device=str(device))
        notes.append(refuse_weak(reward.path, config))
        same_tokens(renderer, Renderer(reward.tokenizer, context.models["reward"].template))
    else:
        given = scorer(config.reward, context.scorers)
    bundle = build(loaded, spec, config, reward, context.seed)
    rows = cast(list[Prompt], context.rows(config.prompts))
    shown = cast(list[Prompt], context.rows(config.prompts, "heldout"))
    shown = shown[: config.samples.prompts if config.samples else 0]
    prompts = [renderer.prompt(row) for row in rows]
    showcased = [renderer.prompt(row) for row in shown]
    capacity = max(len(p.ids) for p in (*prompts, *showcased)) + config.rollout.max_new_tokens
    texts = None if given is None else text_scores_of(given, renderer, {r.id: r for r in rows})

    def sampler(slots: int) -> LocalSampler:
        return LocalSampler(
            loaded.lm, loaded.mode, end_ids=renderer.end_ids, decode=renderer.decode, slots=slots, capacity=capacity
        )

    rollouts, shows = sampler(config.rollout.slots), sampler(max(2, len(showcased)))
    ledger = Ledger(context.dir / "rollouts.jsonl")
    showcase = Showcase(
        shows,
        showcased,
        lambda ids: str(renderer.tokenizer.decode(list(ids))),
        config,
        context.dir / "samples",
        context.seed,
        context.name,
    )

    def record(version: int, completions: Seq[Completion], made: Experience) -> None:
        if showcase.due(version):
            showcase.show(version)
        record_rollout(ledger, version, completions, made)

    ppo = PPO(
        bundle,
        rollouts,
        prompts,
        config,
        seed=context.seed,
        stage=context.name,
        end_id=renderer.end_ids[0],
        text_scores=texts,
        ptx_rows=ptx_rows_of(config, context, renderer, bundle),
        record=record,
    )
    fixed = {"mode": loaded.mode, "slots": config.rollout.slots, "capacity": capacity, "cached": rollouts.settle()}
    if showcased:
        shows.settle()
    with loop_of(
        context, config.train, device, total=config.versions, kind="version", ledgers={"rollouts": ledger}, **fixed
    ) as loop:
        updates = fit(ppo, loop)
    if showcase.due(config.versions):
        showcase.show(config.versions)
    weights = save_lm(
        loaded.lm,
        loaded.tokenizer,
        context.dir / "model",
        renderer.chat_template,
        sidecar_of(spec, "lm", rl_on=config.prompts),
        end_ids=renderer.end_ids,
    )
    metrics = {
        "versions": config.versions,
        "updates": updates,
        "answers": config.versions * ppo.answers,
        "prompts": _prompt_account(ppo, prompts),
        "notes": [note for note in notes if note],
        "weights": weights,
    }
    return Result(metrics)


def _prompt_account(ppo: PPO, prompts: list[TokenPrompt]) -> dict[str, int]:
    used = {p.id for version in range(ppo.config.versions) for p in ppo.prompts_of(version)}
    return {"given": len(prompts), "used": len(used), "not_reached": len(prompts) - len(used)}
