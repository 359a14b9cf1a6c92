"""Keys that are fine alone and mean nothing together, refused in the imperative before a model loads. Torch-free.

One function per stage kind; each line is a sentence: what contradicts what, and which key to change.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

from trimtab.algorithms.ppo.config import PPOConfig
from trimtab.algorithms.reward.config import RewardConfig
from trimtab.evaluation.config import EvaluateConfig
from trimtab.pipeline.graph import Recipe, Stage

Conflict = tuple[str, str, str]
"""Key within the stage, the problem, the fix."""


def refuse_conflicts(recipe: Recipe) -> None:
    """Raises ``RecipeError`` at the first contradiction."""
    for name, stage in recipe.stages.items():
        checks = CHECKS.get(type(stage.config), ())
        for check in checks:
            for key, problem, fix in check(recipe, stage):
                raise recipe.error(f"stages.{name}.{key}", problem, fix)


def _ppo_models(recipe: Recipe, stage: Stage) -> Iterator[Conflict]:
    config: PPOConfig = stage.config
    base = recipe.base(stage.models["model"])
    spec = recipe.models[base]
    if config.sharing == "hydra" and spec.branch is None:
        fix = f"add branch to models.{base} (layers above the trunk), or set sharing: separate"
        yield "sharing", f"hydra shares a frozen trunk, but model '{base}' has no branch", fix
    if "reward" not in stage.models:
        return
    name = recipe.base(stage.models["reward"])
    other = recipe.models[name]
    if config.sharing == "hydra" and other.load == spec.load and other.branch != spec.branch:
        problem = f"hydra needs one trunk, but '{base}' has branch {spec.branch} and the reward's '{name}' has"
        fix = f"give models.{name} branch: {spec.branch}, or set sharing: separate"
        yield "sharing", f"{problem} {'none' if other.branch is None else other.branch}", fix
    if other.template != spec.template:
        problem = f"the reward model scores the policy's tokens, but '{name}' and '{base}' have other templates"
        yield "reward", problem, f"give models.{name} and models.{base} the same template"


def _ppo_critic(recipe: Recipe, stage: Stage) -> Iterator[Conflict]:
    config: PPOConfig = stage.config
    critic = config.critic
    if critic.start in ("reward", "reward-layers") and "reward" not in stage.models:
        problem = f"the critic starts from the reward model, but the reward is the scorer '{config.reward}'"
        yield "critic.start", problem, "set critic.start: model, or name a reward stage"
    if critic.pretrain is not None and critic.pretrain.versions >= config.versions:
        problem = f"all {config.versions} versions would train the critic alone"
        yield "critic.pretrain.versions", problem, "make it smaller than versions"


def _ppo_sampling(recipe: Recipe, stage: Stage) -> Iterator[Conflict]:
    """RL refuses sampling it cannot account for: log-probabilities are of the distribution actually sampled."""
    config: PPOConfig = stage.config
    rollout = config.rollout
    for key, value, off in (
        ("top_p", rollout.top_p, 1.0),
        ("top_k", rollout.top_k, 0),
        ("repetition_penalty", rollout.repetition_penalty, 1.0),
    ):
        if value != off:
            problem = f"training on {key} {value} would learn from another distribution than the policy's"
            yield f"rollout.{key}", problem, f"set {key}: {off:g}; sample with it in evaluation only"
    sequences = rollout.prompts * rollout.samples
    if config.minibatch > sequences:
        problem = f"a minibatch of {config.minibatch} is larger than the rollout of {sequences} sequences"
        yield "minibatch", problem, f"set it to {sequences} or less, or sample more prompts"


def _ppo_parts(recipe: Recipe, stage: Stage) -> Iterator[Conflict]:
    config: PPOConfig = stage.config
    words = [part.word for part in config.shaping]
    for word in words:
        if words.count(word) > 1:
            yield "shaping", f"'{word}' stands {words.count(word)} times", "leave one of them"
    entropy, loss = config.entropy, config.policy_loss
    if entropy is not None and (entropy.bonus is None) == (entropy.target is None):
        both = "both bonus and target" if entropy.bonus is not None else "neither bonus nor target"
        yield "entropy", f"entropy has {both}", "give one of them, or leave entropy out"
    if (loss.clip_low is None) != (loss.clip_high is None):
        one = "clip_low" if loss.clip_low is None else "clip_high"
        yield f"policy_loss.{one}", "the ratio would be clipped on one side only", "switch both off, or give both"


def _reward(recipe: Recipe, stage: Stage) -> Iterator[Conflict]:
    config: RewardConfig = stage.config
    if config.minibatch < 2:
        yield "minibatch", "one answer alone has nothing to be compared with", "set minibatch: 2 or more"


def _evaluate(recipe: Recipe, stage: Stage) -> Iterator[Conflict]:
    config: EvaluateConfig = stage.config
    if config.candidate == config.against:
        yield "against", f"'{config.candidate}' is compared with itself", "name the model it started from"
    if not config.scorers:
        yield "scorers", "no scorer would measure anything", "name one, as in [vader]"
    for word in config.scorers:
        if config.scorers.count(word) > 1:
            yield "scorers", f"'{word}' stands twice", "leave one of them"
    name = config.candidate
    while name in recipe.stages:
        trained = recipe.stages[name]
        if isinstance(trained.config, PPOConfig) and trained.config.reward in config.scorers:
            problem = f"'{trained.config.reward}' was the reward of stage '{name}', so it cannot judge what came of it"
            yield "scorers", problem, "measure with a scorer that took no part in training"
        name = trained.models[trained.table.parent]


Check = Callable[[Recipe, Stage], Iterator[Conflict]]

CHECKS: dict[type, tuple[Check, ...]] = {
    PPOConfig: (_ppo_models, _ppo_critic, _ppo_sampling, _ppo_parts),
    RewardConfig: (_reward,),
    EvaluateConfig: (_evaluate,),
}
