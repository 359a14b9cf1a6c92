"""``kind: reward`` as the pipeline runs it: load, render, fit, measure against baselines, fold the scale, save."""

from __future__ import annotations

import math
from collections.abc import Sequence as Seq
from pathlib import Path
from typing import Any, cast

import torch

from trimtab.algorithms.reward.config import RewardConfig
from trimtab.algorithms.reward.reward import Ranking, RewardModel, ranking_of, scores
from trimtab.data.template import Renderer
from trimtab.errors import DataError, Diverged
from trimtab.evaluation.bag_of_words import fit_bag_of_words
from trimtab.evaluation.pairs import decided_pairs, reward_report, words_long
from trimtab.models.bundle import Bundle, ScalarPart
from trimtab.models.export import adapter_of, merged_decoder, save_reward
from trimtab.models.load import load_lm
from trimtab.models.trunk_store import with_trunk
from trimtab.protocols import ToScore
from trimtab.records import Comparison
from trimtab.runtime.files import write_json
from trimtab.scoring.named import scorer
from trimtab.train.fit import fit
from trimtab.train.rows import StageRows
from trimtab.train.session import device_of, loop_of, sidecar_of
from trimtab.train.stage import Result, StageContext


def rankings_of(
    account: StageRows, split: str, limit: int | None, renderer: Renderer, config: RewardConfig
) -> tuple[list[Comparison], list[Ranking], list[str]]:
    """Comparisons with their tokenised rankings, and the ids of rows in which everything is tied."""
    tied: list[str] = []

    def make(row: Comparison) -> Ranking | None:
        ranking = ranking_of(row, [renderer.answer(row.prompt, text) for text in row.answers], config)
        if ranking is None:
            tied.append(row.id)
        return ranking

    purpose = "training" if split == "train" else "measure"
    taken = account.take(config.data, split, make, purpose=purpose, limit=limit, nothing="every answer is tied")
    return [row for row, _ in taken], [made for _, made in taken], tied


def carry_trunk(bundle: Bundle, rankings: list[Ranking], config: RewardConfig) -> list[Ranking]:
    """Rankings whose texts carry their trunk activations, computed once for all epochs and measurements."""
    texts = iter(with_trunk(bundle, [t for r in rankings for t in r.texts], config.train.token_budget))
    return [Ranking(r.id, tuple(next(texts) for _ in r.texts), r.pairs, r.margins, r.targets) for r in rankings]


@torch.no_grad()
def fold_scale(bundle: Bundle, rankings: list[Ranking], token_budget: int) -> tuple[float, float]:
    """Divide the head by the standard deviation of training scores; returns (that deviation, the offset left over).

    Estimated on the first 256 rankings, which the keyed order makes a random sample. The head has no bias, so the
    offset (mean of the scores in their new unit) goes into the sidecar.
    """
    flat = torch.tensor([s for row in scores(bundle, rankings[:256], token_budget) for s in row], dtype=torch.float64)
    std = float(flat.std(correction=0)) or 1.0
    if not math.isfinite(std):
        raise Diverged("the reward model's scores are not finite", fix="lower the learning rate and train it again")
    cast(ScalarPart, bundle.parts["reward"]).head.weight.div_(std)
    return std, float(flat.mean()) / std


def measure(
    bundle: Bundle,
    train: Seq[Comparison],
    heldout: Seq[Comparison],
    tokenised: list[Ranking],
    config: RewardConfig,
    keep: Path | None = None,
) -> dict[str, Any]:
    """The held-out report with its baselines, JSON-able. ``keep``: a file for every answer's score, for people."""
    found = scores(bundle, tokenised, config.train.token_budget)
    if keep is not None:
        rows = [
            {"id": c.id, "ranks": list(c.ranks), "scores": row, "words": [words_long(answer) for answer in c.answers]}
            for c, row in zip(heldout, found, strict=True)
        ]
        write_json(keep, rows)
    report = reward_report(heldout, found, fit_bag_of_words(train)).as_dict()
    report["baselines"] = {}
    for name in config.baselines:
        items = [[ToScore(c.id, (), answer) for answer in c.answers] for c in heldout]
        given = [scorer(name).score(row) for row in items]
        if any(s is None for row in given for s in row):
            raise DataError(f"baseline {name} could not score every held-out answer", fix="leave it out")
        share = decided_pairs(heldout, cast(list[list[float]], given)).accuracy()
        report["baselines"][name] = None if share is None else share.share
    return report


def run(config: RewardConfig, context: StageContext) -> Result:
    spec, device = context.models["model"], device_of()
    loaded = load_lm(spec, device=str(device))
    renderer = Renderer(loaded.tokenizer, spec.template)
    bundle = Bundle(loaded.lm, loaded.mode, spec.branch, spec.lora, context.seed)
    bundle.add_scalar("reward", "last", trained=True, lm=bool(config.lm))
    account = StageRows(context)
    train_rows, rankings, tied = rankings_of(account, "train", config.limit, renderer, config)
    heldout_rows, heldout, heldout_tied = rankings_of(account, "heldout", config.heldout, renderer, config)
    account.write()
    rankings, heldout = carry_trunk(bundle, rankings, config), carry_trunk(bundle, heldout, config)
    model = RewardModel(
        bundle,
        rankings,
        config,
        seed=context.seed,
        stage=context.name,
        heldout=heldout,
        best=context.dir / "best",
    )
    with loop_of(context, config.train, device, total=model.passes.updates, mode=loaded.mode) as loop:
        updates = fit(model, loop)
    model.best.restore(model.trainables["reward"].parameters)
    std, offset = fold_scale(bundle, rankings, config.train.token_budget)
    kept = context.dir / "heldout.json"
    report = measure(bundle, train_rows, heldout_rows, heldout, config, kept) if heldout else {}
    sidecar = sidecar_of(spec, "reward", offset=offset, scale_folded=std, heldout=report, comparisons=config.data)
    weights = save_reward(
        merged_decoder(bundle, "reward"),
        cast(ScalarPart, bundle.parts["reward"]).head,
        loaded.tokenizer,
        context.dir / "model",
        renderer.chat_template,
        sidecar,
        end_ids=renderer.end_ids,
        pad_id=renderer.pad_id,
        beside=adapter_of(bundle, "reward", spec.load),
    )
    metrics = {
        "rows": len(train_rows) + len(tied),
        "rankings": len(rankings),
        "pairs": sum(len(r.pairs) for r in rankings),
        "tied_rows": [*tied, *heldout_tied],
        "updates": updates,
        "best_version": model.best.version,
        "heldout": report,
        "weights": weights,
    }
    return Result(metrics, _lines(report, config))


def _lines(report: dict[str, Any], config: RewardConfig) -> tuple[str, ...]:
    if not report:
        return ("reward model: no held-out comparisons, so its accuracy is unknown",)
    others = {"longer wins": report["longer_wins"]["share"]}
    if report["bag_of_words"]:
        others["bag of words"] = report["bag_of_words"]["share"]
    others |= {name: share for name, share in report["baselines"].items() if share is not None}
    accuracy = report["accuracy"]
    return (
        f"reward model: ranks {accuracy['share']:.3f} of held-out pairs as people do "
        f"(95 % {accuracy['low']:.3f}..{accuracy['high']:.3f}); "
        + ", ".join(f"{name} {share:.3f}" for name, share in others.items()),
    )
