"""The report: all that a run directory holds is on the page, nothing in it can hurt, nothing missing breaks it."""

from __future__ import annotations

import json
import math
import os
import random
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings, strategies as st

from trimtab.evaluation.config import Bounds
from trimtab.evaluation.pairs import reward_report
from trimtab.evaluation.verdict import Answers, decide
from trimtab.pipeline.report import write
from trimtab.pipeline.report_axes import ticks
from trimtab.pipeline.report_chart import Series, line_chart, smoothed, thinned
from trimtab.pipeline.report_curves import Curves
from trimtab.pipeline.report_files import StageFiles, read_run, seconds_of
from trimtab.pipeline.report_page import duration, el, percent, short
from trimtab.pipeline.report_samples import overlap, spread
from trimtab.pipeline.report_shapes import histogram, reliability_chart
from trimtab.records import Comparison, Prompt

RECIPE = """\
name: quickstart
seed: 3
models:
  base: {load: smollm2-135m-q4, branch: 6}
stages:
  sft:
    kind: sft
    optimizer: {lr: 1e-4}                       # default
  reward:
    kind: reward
  policy:
    kind: ppo
  verdict:
    kind: evaluate
"""
OPENINGS = ("A moving and deeply", "The plot is", "For all its", "Nobody will", "It takes", "Some films")
ENDS = ("felt film that lingers.", "a mess, and a long one.", "wit and warmth, a delight.", "of no use to anyone.")


def save(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, ensure_ascii=False), encoding="utf-8")


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def manifest(stage: str, kind: str, metrics: dict[str, Any] | None, **more: Any) -> dict[str, Any]:
    status = "started" if metrics is None else "finished"
    base = {"stage": stage, "kind": kind, "status": status, "seed": 3, "config": {}, "inputs": {}, "inexact": False}
    return base | {"metrics": metrics or {}, "lines": []} | more


def sft_stage(folder: Path, chance: random.Random, updates: int = 188) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(updates):
        loss = 3.1 + 1.4 * math.exp(-i / 30) + chance.gauss(0, 0.16)
        rows.append({"kind": "update", "update": i, "version": i, "loss": loss, "loss/nll": loss, "tokens": 400.0,
                     "grad_norm/policy": 2 + chance.random(), "lr/policy": 1e-4 * math.cos(i / updates * 1.5),
                     "micro_batches": 2, "skipped": ""})  # fmt: skip
        if i % 40 == 0 or i == updates - 1:
            rows.append({"kind": "version", "version": i + 1, "heldout/nll": 3.2 + 1.3 * math.exp(-i / 30)})
    lines(folder / "metrics.jsonl", rows)
    result = {"rows": 3000, "tokens_learned": 71234, "updates": updates, "best_version": updates, "heldout_nll": 3.21}
    inputs = {"model": {"load": "smollm2-135m-q4", "sha256": "b1"}, "data": {"rows": "films.demonstrations"}}
    save(folder / "manifest.json", manifest("sft", "sft", result, inputs=inputs))


def heldout_report(chance: random.Random) -> dict[str, Any]:
    """A real report on made-up comparisons, so that the page follows the evaluation's own field names."""
    comparisons, scores = [], []
    for i in range(60):
        ratings = tuple(round(chance.uniform(-3, 3), 2) for _ in range(4))
        answers = tuple("word " * chance.randint(3, 30) for _ in ratings)
        order = sorted(range(4), key=lambda k: -ratings[k])
        ranks = tuple(order.index(k) + 1 for k in range(4))
        comparisons.append(Comparison(f"c{i}", Prompt(f"c{i}", ()), answers, ranks, ratings=ratings))
        scores.append([0.6 * r + chance.gauss(0, 1) for r in ratings])
    return reward_report(comparisons, scores).as_dict() | {"baselines": {"vader": 0.652, "none": None}}


def reward_stage(folder: Path, chance: random.Random) -> None:
    rows: list[dict[str, Any]] = []
    for i in range(47):
        rows.append({"kind": "update", "update": i, "version": i, "loss": 0.6, "loss/pair": 0.72 - i * 0.004,
                     "accuracy": 0.5 + i * 0.006, "score/gap": i * 0.02, "grad_norm/reward": 3.0,
                     "lr/reward": 5e-5, "micro_batches": 1, "skipped": ""})  # fmt: skip
    rows.append({"kind": "version", "version": 47, "heldout/accuracy": 0.78, "heldout/loss": 0.51})
    lines(folder / "metrics.jsonl", rows)
    result = {"rows": 750, "rankings": 748, "pairs": 3021, "tied_rows": ["c1", "c2"], "updates": 47,
              "heldout": heldout_report(chance)}  # fmt: skip
    inputs = {"model": {"stage": "sft", "sha256": "ab"}, "data": {"rows": "films.comparisons"}}
    said = ["reward model: ranks 0.78 of held-out pairs as people do"]
    save(folder / "manifest.json", manifest("reward", "reward", result, inputs=inputs, lines=said))


def ppo_rows(chance: random.Random, versions: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for v in range(versions):
        for j in range(12):
            at = v * 12 + j
            rows.append({"kind": "update", "update": at, "version": v, "loss": 0.1,
                         "loss/policy": chance.gauss(0, 0.01),
                         "loss/value": 0.5 / (1 + at / 20), "clip_fraction/policy": 0.1 * chance.random(),
                         "clip_fraction/value": 0.2 * chance.random(), "kl/old_k3": 0.004 * chance.random(),
                         "grad_norm/policy": 1 + chance.random(), "grad_norm/critic": 4 + chance.random(),
                         "lr/policy": 1e-4, "lr/critic": 1.5e-4, "micro_batches": 1,
                         "skipped": "gradient of policy" if at == 31 else ""})  # fmt: skip
        done = v / max(1, versions - 1)
        rows.append({"kind": "version", "version": v + 1, "score/mean": 0.36 + 1.6 * done + chance.gauss(0, 0.05),
                     "score/std": 0.9 - 0.2 * done, "reward/mean": 0.5 * done, "kl/reference_k1": 5.7 * done**1.3,
                     "length/mean": 24 - 4 * done, "truncated": 0.05 - 0.03 * done, "entropy": 2.9 - 0.8 * done,
                     "clip_fraction/reward": 0.42, "explained_variance": -0.2 + 0.7 * done, "beta": 0.05,
                     "parity/mean": 0.0021, "parity/p99": 0.018, "perplexity": 20 - 8 * done,
                     "perplexity/reference": 20 - 3 * done, "value/mean": 0.1, "quarantined": 0.0, "excluded": 0.0,
                     "updates": 12.0, "pretraining": float(v == 0), "tokens": 1500.0})  # fmt: skip
    return rows


def ppo_stage(folder: Path, chance: random.Random, versions: int = 20) -> None:
    lines(folder / "metrics.jsonl", ppo_rows(chance, versions))
    lines(folder / "events.jsonl", [{"time": 1.7e9 + 900, "event": "resumed", "version": 7}])
    for version in range(0, versions + 1, 5):
        rows = []
        for i, opening in enumerate(OPENINGS[:3]):
            text = f"{opening} {ENDS[min(3, (i + version // 5) % 4)]}"
            rows.append({"version": version, "prompt_id": f"films-{i}",
                         "prompt": f"user\nWrite one sentence.\n{opening}",
                         "text": text, "score": -0.4 + version / 10, "finish": "length" if i == 2 else "end",
                         "tokens": 12 + i})  # fmt: skip
        lines(folder / "samples" / f"{version}.jsonl", rows)
    result = {"versions": versions, "updates": versions * 12, "answers": versions * 64, "weights": "ab",
              "prompts": {"given": 5600, "used": 1280, "not_reached": 4320}, "notes": []}  # fmt: skip
    config = {"versions": versions, "parity": {"mean": 0.05, "p99": 0.5}}
    inputs = {"model": {"stage": "sft"}, "reward": {"stage": "reward"}, "prompts": {"rows": "films.prompts"}}
    save(folder / "manifest.json", manifest("policy", "ppo", result, config=config, inputs=inputs))


def evaluate_stage(folder: Path, chance: random.Random, shift: float = 0.15) -> None:
    n = 96

    def side(gain: float, level: float) -> Answers:
        scores = {name: [chance.gauss(gain, 0.5) for _ in range(n)] for name in ("vader", "ridge")}
        tokens = [chance.randint(12, 30) for _ in range(n)]
        ids = [[chance.randint(0, 400) for _ in range(t - 1)] for t in tokens]
        return Answers(scores, [level * t for t in tokens], ids, tokens, [chance.random() < 0.04 for _ in range(n)])

    candidate, against = side(0.2 + shift, 2.8), side(0.2, 2.6)
    kl = [chance.gauss(5, 2) for _ in range(n)]
    result = decide(candidate, against, kl, Bounds(), names=("policy", "sft"), resamples=500).as_dict()
    config = {"candidate": "policy", "against": "sft"}
    made = manifest(
        "verdict", "evaluate", result | {"distinct_2_words": [0.81, 0.84], "prompts_used": n}, config=config
    )
    save(folder / "manifest.json", made | {"lines": list(result["lines"])})
    pairs = []
    for i in range(n):
        opening = OPENINGS[i % len(OPENINGS)]
        row: dict[str, Any] = {"prompt_id": f"films-{i}"}
        for name, answers in (("candidate", candidate), ("against", against)):
            row[name] = {"text": f"{opening} {chance.choice(ENDS)}", "finish": "end",
                         "scores": {key: values[i] for key, values in answers.scores.items()}}  # fmt: skip
        pairs.append(row)
    save(folder / "samples" / "pairs.json", pairs)


def make_run(folder: Path, *, shift: float = 0.15, versions: int = 20, updates: int = 188) -> Path:
    chance = random.Random(5)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    save(folder / "manifest.json", {"environment": {"torch": "2.13.0", "threads": 2, "cpu": "Some CPU"}})
    events: list[dict[str, Any]] = [{"time": 1.7e9, "event": "launched", "todo": ["sft"], "different": []}]
    at = 1.7e9
    for name, took in (("sft", 152.0), ("reward", 140.5), ("policy", 480.0), ("verdict", 61.0)):
        events.append({"time": at, "event": "stage", "stage": name, "status": "started"})
        at += took
        events.append({"time": at, "event": "stage", "stage": name, "status": "finished"})
    lines(folder / "events.jsonl", events)
    stages = folder / "stages"
    sft_stage(stages / "sft", chance, updates)
    reward_stage(stages / "reward", chance)
    ppo_stage(stages / "policy", chance, versions)
    evaluate_stage(stages / "verdict", chance, shift)
    account = {"source": ["vaderSentiment==3.3.2"], "detected": "", "rows_in": 10605,
               "used": {"train": 9000, "heldout": 1603}, "left_out": 2,
               "left_out_by_reason": {"duplicate text": 2}, "notes": {},
               "left_out_rows": [{"file": "snippets.txt", "line": 77, "reason": "duplicate text"}] * 2,
               "records": {"demonstrations.train": 4500, "comparisons.train": 1125}}  # fmt: skip
    save(folder / "data" / "films.json", account)
    return folder


class Page(HTMLParser):
    """What a browser would make of the page: tags balance, and every attribute is known."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert not self.open, f"not closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())

    def figures(self) -> set[str]:
        return {str(attrs["aria-label"]) for tag, attrs in self.tags if tag == "svg" and attrs.get("role") == "img"}


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


def written(folder: Path) -> Page:
    return Page(write(folder).read_text(encoding="utf-8"))


def test_everything_is_on_the_page(run_dir: Path) -> None:
    page = written(run_dir)
    text = page.text
    for word in ("PASSED: policy scores above sft", "all bounds hold", "2 min 32 s", "8 min 00 s", "reward model"):
        assert word in text
    assert {
        "Loss", "Pair loss", "Accuracy on held-out pairs", "By how clear the judgement was",
        "Calibration of σ(Δ)", "By length: better minus worse answer", "Score, mean ± 1 sd", "KL to the reference",
        "Answer length", "Truncated answers", "Entropy", "Clipped", "Explained variance (critic)", "Value loss",
        "Gradient norm", "Learning rate", "Sampler against learner", "KL–reward frontier", "vader", "ridge",
    } <= page.figures()  # fmt: skip
    for word in ("longer wins", "vader", "65.2 %", "duplicate text", "10 605", "1e-4", "Some CPU", "version 20"):
        assert word in text
    assert "1 of 240 updates skipped, not finite: gradient of policy" in text
    assert "nats per answer, k1" in text, "a KL is named by its estimator"
    assert "policy: resumed from a checkpoint (1×)" in text and "the first rollout trained the critic alone" in text


def test_no_metric_is_left_out(run_dir: Path) -> None:
    """What no chart knows is drawn by itself: a new part of an algorithm shows up without a change here."""
    rows = ppo_rows(random.Random(1), 3)
    for row in rows:
        row["brand/new"] = 1.0
    lines(run_dir / "stages" / "policy" / "metrics.jsonl", rows)
    page = written(run_dir)
    assert {"brand/new", "value/mean"} <= page.figures()


def test_the_page_is_self_contained(run_dir: Path) -> None:
    page = written(run_dir)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe", "object", "base", "form")]
    for tag, attrs in page.tags:
        for name, value in attrs.items():
            assert not name.startswith("on") and name not in ("src", "srcset", "data", "action", "style"), (tag, name)
            assert name != "href" or str(value).startswith("#"), value
    html = (run_dir / "report.html").read_text(encoding="utf-8")
    assert "url(" not in html and "@import" not in html and "http://" not in html and "https://" not in html
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv") == "Content-Security-Policy")
    assert policy == "default-src 'none'; style-src 'unsafe-inline'"


def test_every_link_has_its_place(run_dir: Path) -> None:
    page = written(run_dir)
    anchors = [str(attrs["id"]) for _, attrs in page.tags if attrs.get("id")]
    assert len(anchors) == len(set(anchors))
    assert {str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a"} <= set(anchors)


EVIL = '</style></title><script>alert(1)</script><img src=x onerror="alert(2)">&amp;\x00\u202e\ud800'


def poisoned(value: Any) -> Any:
    """Every string, and every key that is shown, replaced by markup."""
    if isinstance(value, dict):
        return {key: poisoned(child) for key, child in value.items()} | {EVIL: EVIL}
    if isinstance(value, list):
        return [poisoned(child) for child in value]
    return EVIL if isinstance(value, str) else value


def test_nothing_in_the_files_becomes_markup(run_dir: Path) -> None:
    keep = ("kind", "status", "event", "stage", "skipped")
    for path in [p for p in run_dir.rglob("*.json*")]:
        rows = path.suffix == ".jsonl"
        values = (
            [json.loads(line) for line in path.read_text().splitlines()] if rows else [json.loads(path.read_text())]
        )
        made = []
        for value in values:
            dirty = poisoned(value)
            if isinstance(value, dict):
                dirty |= {key: value[key] for key in keep if key in value}
            made.append(json.dumps(dirty))
        path.write_text("\n".join(made) + "\n")
    (run_dir / "recipe.yaml").write_text(RECIPE.replace("quickstart", json.dumps(EVIL[:-3])), encoding="utf-8")
    page = written(run_dir)
    tags = {tag for tag, _ in page.tags}
    assert not tags & {"script", "img"} and [tag for tag, _ in page.tags].count("style") == 1
    assert "<script>alert(1)" in page.text, "the text itself is shown"
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]


def test_the_same_directory_gives_the_same_bytes(run_dir: Path) -> None:
    first = write(run_dir).read_bytes()
    assert write(run_dir).read_bytes() == first


def test_a_report_needs_no_torch() -> None:
    code = "import sys, trimtab.pipeline.report; sys.exit(bool({'torch', 'numpy', 'transformers'} & set(sys.modules)))"
    path = os.pathsep.join(sys.path)
    assert subprocess.run([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path}).returncode == 0


def test_a_failed_verdict_says_so(tmp_path: Path) -> None:
    page = written(make_run(tmp_path / "run", shift=-0.4))
    assert "NOT PASSED: policy scores BELOW sft" in page.text
    assert [attrs for tag, attrs in page.tags if attrs.get("class") == "verdict bad"]


def test_a_broken_bound_is_marked(run_dir: Path) -> None:
    path = run_dir / "stages" / "verdict" / "manifest.json"
    made = json.loads(path.read_text())
    check = next(c for c in made["metrics"]["checks"] if c["name"] == "kl")
    check |= {"value": 11.0, "holds": False}
    save(path, made)
    text = written(run_dir).text
    assert "BROKEN" in text and text.count(" holds ") == 4


def test_without_an_evaluation_it_says_what_is_unknown(run_dir: Path) -> None:
    (run_dir / "recipe.yaml").write_text(RECIPE.partition("  verdict:")[0], encoding="utf-8")
    shutil.rmtree(run_dir / "stages" / "verdict")
    assert "no evaluate stage" in written(run_dir).text


def test_an_unfinished_run(run_dir: Path) -> None:
    stages = run_dir / "stages"
    shutil.rmtree(stages / "verdict")
    save(stages / "policy" / "manifest.json", manifest("policy", "ppo", None, config={"versions": 20}))
    rows = (stages / "policy" / "metrics.jsonl").read_text().splitlines()[:50]
    (stages / "policy" / "metrics.jsonl").write_text("\n".join(rows) + '\n{"kind": "upda')
    events = (run_dir / "events.jsonl").read_text().splitlines()[:6]
    (run_dir / "events.jsonl").write_text("\n".join(events) + "\n")
    page = written(run_dir)
    assert "Not decided yet" in page.text and "stage verdict is not started" in page.text
    assert "3 of 20" in page.text and "unfinished" in page.text
    assert "policy/metrics.jsonl: 0 unreadable lines; its last line is incomplete" in page.text


def test_a_stage_without_its_manifest_still_shows_its_curves(run_dir: Path) -> None:
    (run_dir / "stages" / "policy" / "manifest.json").unlink()
    page = written(run_dir)
    assert "stages/policy/manifest.json is missing" in page.text and "no manifest" in page.text
    assert "KL to the reference" in page.figures()


def test_an_empty_folder(tmp_path: Path) -> None:
    text = written(tmp_path).text
    assert "recipe.yaml is missing" in text and "no stage is named" in text


def test_any_file_may_be_missing(tmp_path: Path) -> None:
    run_dir = make_run(tmp_path / "run", versions=5, updates=20)
    for path in sorted(p for p in run_dir.rglob("*") if p.is_file() and p.name != "report.html"):
        kept = path.read_bytes()
        path.unlink()
        written(run_dir)
        path.write_bytes(kept)


@pytest.mark.parametrize("damage", [b"\x00\xff\xfe garbage", b"[]\n", b'{"metrics": 3}\n', b"{" * 100000])
def test_any_file_may_be_damaged(tmp_path: Path, damage: bytes) -> None:
    run_dir = make_run(tmp_path / "run", versions=5, updates=20)
    for path in sorted(p for p in run_dir.rglob("*") if p.is_file() and p.name != "report.html"):
        kept = path.read_bytes()
        path.write_bytes(damage)
        written(run_dir)
        path.write_bytes(kept)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_any_value_may_be_another(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    """A key of a manifest or a row holds something that nobody expects: the page is still written."""
    folder = tmp_path_factory.mktemp("odd") / "run"
    make_run(folder, versions=3, updates=10)
    for name in ("sft", "reward", "policy", "verdict"):
        path = folder / "stages" / name / "manifest.json"
        save(path, replaced(json.loads(path.read_text()), data))
    path = folder / "stages" / "policy" / "metrics.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()[:30]]
    lines(path, [replaced(row, data) if i % 7 == 0 else row for i, row in enumerate(rows)])
    pairs = folder / "stages" / "verdict" / "samples" / "pairs.json"
    save(pairs, replaced(json.loads(pairs.read_text())[:3], data))
    written(folder)


def replaced(value: Any, data: st.DataObject) -> Any:
    """The value with one thing in it, at some depth, replaced."""
    if isinstance(value, dict) and value and data.draw(st.integers(0, 5)):
        key = data.draw(st.sampled_from(sorted(value)))
        return value | {key: replaced(value[key], data)}
    if isinstance(value, list) and value and data.draw(st.integers(0, 5)):
        index = data.draw(st.integers(0, len(value) - 1))
        return [*value[:index], replaced(value[index], data), *value[index + 1 :]]
    return data.draw(json_values)


def test_an_account_that_does_not_add_up_is_shown(run_dir: Path) -> None:
    assert "adds up" in written(run_dir).text
    path = run_dir / "data" / "films.json"
    save(path, json.loads(path.read_text()) | {"rows_in": 10606})
    assert "does not add up" in written(run_dir).text


def test_time_of_a_stage_that_was_killed_is_a_lower_bound() -> None:
    def event(at: float, **more: Any) -> dict[str, Any]:
        return {"time": at, **more}

    begun = {"event": "stage", "stage": "sft", "status": "started"}
    again = {"event": "stage", "stage": "sft", "status": "continued"}
    ended = {"event": "stage", "stage": "sft", "status": "finished"}
    launch, stop = {"event": "launched"}, {"event": "interrupted"}
    other = {"event": "stage", "stage": "reward", "status": "started"}
    smooth = (event(0, **launch), event(1, **begun), event(11, **ended), event(12, **other))
    assert seconds_of(smooth, "sft") == (10, False)
    assert seconds_of(smooth, "reward") == (None, True)
    assert seconds_of(smooth, "policy") == (None, False)
    stopped = (event(1, **begun), event(4, **stop), event(9, **launch), event(10, **again), event(12, **ended))
    assert seconds_of(stopped, "sft") == (5, False)
    killed = (event(1, **begun), event(9, **launch), event(10, **again), event(12, **ended))
    assert seconds_of(killed, "sft") == (2, True)
    assert seconds_of((event(1, **begun), {"event": "interrupted"}), "sft") == (None, True)


def test_updates_lie_between_their_versions() -> None:
    updates = tuple({"kind": "update", "update": i, "version": v, "x": 1.0} for i, v in enumerate((0, 0, 1, 1, 1, 1)))
    stage = StageFiles("policy", "ppo", updates=updates)
    assert [x for x, _ in Curves(stage, by_version=True).points("x")] == [0.5, 1.0, 1.25, 1.5, 1.75, 2.0]
    assert [x for x, _ in Curves(stage, by_version=False).points("x")] == [0, 1, 2, 3, 4, 5]


def test_stages_outside_the_recipe_are_shown_too(run_dir: Path) -> None:
    save(run_dir / "stages" / "extra" / "manifest.json", manifest("extra", "novel", {"thing": 4.0, "words": "some"}))
    assert [stage.name for stage in read_run(run_dir).stages] == ["sft", "reward", "policy", "verdict", "extra"]
    text = written(run_dir).text
    assert "novel" in text and "thing" in text


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 1) == [0, 0.2, 0.4, 0.6, 0.8, 1.0]
    assert ticks(-0.3, 0.3) == [-0.2, 0, 0.2]
    assert ticks(0, 3, 6) == [0, 0.5, 1, 1.5, 2, 2.5, 3] and ticks(0, 3, 6, whole=True) == [0, 1, 2, 3]
    assert ticks(3, 97) == [20, 40, 60, 80]
    assert ticks(1e-5, 9e-5) == [2e-5, 4e-5, 6e-5, 8e-5]


@given(st.floats(-1e9, 1e9), st.floats(-2, 9))
def test_ticks_of_any_range(low: float, power: float) -> None:
    found = ticks(low, low + 10**power)
    assert len(found) <= 7 and found == sorted(found)


def test_a_gap_interrupts_a_line() -> None:
    chart = line_chart("t", [Series("s", [(0, 1.0), (1, 2.0), (2, None), (3, 3.0), (4, 1.0)])], x_label="x")
    assert chart is not None
    path = next(part for part in chart.split('d="')[1:] if "line c1" in part).partition('"')[0]
    assert path.count("M") == 2 and path.count("L") == 2


def test_charts_without_values_are_not_drawn() -> None:
    assert line_chart("t", [Series("s", [(0, None)])], x_label="x") is None
    assert histogram("t", [1.0], x_label="x") is None
    assert reliability_chart("t", [], x_label="x", unit="", note="") is None


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [1e-12, 1e-12], [-3.0, -3.0], [1e99, -1e99], [1e-300, 2e-300]])
def test_a_chart_of_flat_or_extreme_values(values: list[float]) -> None:
    chart = line_chart("t", [Series("s", list(enumerate(values)))], x_label="x")
    assert chart is not None and "nan" not in chart and "inf" not in chart


def test_long_lines_are_thinned_by_means() -> None:
    points = [(float(i), float(i % 2)) for i in range(3000)]
    thin = thinned(points)
    assert len(thin) == 300 and all(y == 0.5 for _, y in thin) and thin[0][0] == 4.5
    assert smoothed([(0, 0.0), (1, None), (2, 3.0)], 3) == [(0, 0.0), (1, 1.5), (2, 3.0)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (None, "–"), (math.nan, "–"), (1234567, "1\u2009234\u2009567"), (0.05, "0.050"), (1e-4, "1e−4"),
     (1.5e-5, "1.5e−5"), (-0.25, "−0.250"), (2.345, "2.35"), (23.45, "23.4"), (234.5, "234")],
)  # fmt: skip
def test_numbers(value: float | None, shown: str) -> None:
    assert short(value) == shown


def test_words_for_numbers() -> None:
    assert (percent(0.123), percent(-0.01, 0), percent(None)) == ("12.3 %", "−1 %", "–")
    assert short(0.5, sign=True) == "+0.500"
    assert [duration(s) for s in (None, 5.4, 65, 3660)] == ["–", "5 s", "1 min 05 s", "1 h 01 min"]


def test_elements_escape_what_they_are_given() -> None:
    assert el("p", "<b>", el("b", "x"), None, ["&", el("i", "y")]) == "<p>&lt;b&gt;<b>x</b>&amp;<i>y</i></p>"
    assert el("p", class_='"><script>', data_x=None) == '<p class="&quot;&gt;&lt;script&gt;"></p>'


def test_samples() -> None:
    assert spread(list(range(20)), 4) == [0, 6, 13, 19]
    assert spread([3, 5], 4) == [3, 5]
    assert overlap("user: go\nA moving", "A moving film") == 8
    assert overlap("abc", "xyz") == overlap("", "x") == overlap("x", "") == 0
