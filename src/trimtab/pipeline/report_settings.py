"""The report's settings: what differs from preset and defaults, the whole recipe, and where it ran. Torch-free."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, cast

from trimtab.errors import TrimtabError
from trimtab.pipeline.manifest import flat
from trimtab.pipeline.report_files import RunFiles, StageFiles, mapping
from trimtab.pipeline.report_page import Raw, el, missing, section, table
from trimtab.pipeline.stages import STAGES
from trimtab.schema import field_hints, key_of, members, merge, node_of, parse, to_plain


def settings_section(run: RunFiles) -> Raw:
    """Keys that differ from what the preset or the defaults say, the resolved recipe, and the environment."""
    parts: list[Any] = []
    for stage in run.stages:
        if stage.config:
            parts += _different(stage)
    recipe = el("pre", run.recipe) if run.recipe else missing("recipe.yaml is missing")
    where = [[key, str(value)] for key, value in run.environment.items()]
    return section(
        "Settings",
        el("h3", "What differs from preset and defaults"),
        *(parts or [missing("no stage has written its keys (yet)")]),
        el("details", el("summary", "recipe.yaml, every key written out and who set it"), recipe),
        el("h3", "Environment"),
        table(["", ""], where) if where else missing("machine and versions: manifest.json is missing"),
        _other_environments(run),
        anchor="settings",
    )


def _different(stage: StageFiles) -> list[Any]:
    usual, whose = usual_of(stage)
    here, rows = flat(stage.config), []
    for key, value in here.items():
        before = _usually(key, usual)
        if before != _text(value):
            rows.append([el("code", key), _text(value), before])
    title = el("summary", f"{stage.name}: {len(rows)} keys differ from {whose}, {len(here) - len(rows)} do not")
    body = table(["key", "here", whose], rows, cards=True)
    return [el("details", title, body, open="open" if stage.kind == "ppo" else None)]


def _usually(key: str, usual: Mapping[str, Any]) -> str:
    """What a key is if nobody writes it; of a part that is otherwise another one, that."""
    if key in usual:
        return _text(usual[key])
    inside = [
        f"{name.removeprefix(key)[1:]}: {_text(value)}" for name, value in usual.items() if name.startswith(f"{key}.")
    ]
    if inside:
        return ", ".join(inside)
    parents = [key.rsplit(".", depth)[0] for depth in range(1, key.count(".") + 1)]
    found = next((_text(usual[parent]) for parent in parents if parent in usual), None)
    return found if found is not None else "(required)" if usual else "(unknown)"


def usual_of(stage: StageFiles) -> tuple[Mapping[str, Any], str]:
    """The keys of a stage that says nothing but what it must: flat, and the name of where they come from.

    A required key is absent; so is everything of a kind that this version does not know.
    """
    table_of = STAGES.get(stage.kind)
    if table_of is None:
        return {}, "the defaults (unknown kind)"
    name = stage.config.get("preset")
    preset = table_of.presets.get(name) if isinstance(name, str) else None
    given = _required(table_of.config, stage.config, preset or {})
    try:
        tree = node_of(given)
        if preset is not None:
            tree = merge(node_of(preset), tree, table_of.config)
        found = dict(flat(to_plain(parse(tree, table_of.config))))
    except TrimtabError:
        return {}, "the defaults (not readable by this version)"
    asked = flat(given)
    usual = {key: value for key, value in found.items() if key not in asked or key == "preset"}
    return usual, f"preset {name}" if preset is not None else "the defaults"


def _required(kind: type[Any], config: Mapping[str, Any], preset: Mapping[str, Any]) -> dict[str, Any]:
    """The keys of a config that no default and no preset gives, within the preset's parts too (``ptx.data``)."""
    none, found, hints = dataclasses.MISSING, {}, field_hints(kind)
    for field in dataclasses.fields(kind):
        key = key_of(field.name)
        if key not in config:
            continue
        if key == "preset" or (key not in preset and field.default is none and field.default_factory is none):
            found[key] = config[key]
        elif isinstance(config[key], Mapping) and isinstance(preset.get(key), Mapping):
            parts = [part for part in members(hints[key]) if dataclasses.is_dataclass(part)]
            inner = _required(cast("type[Any]", parts[0]), config[key], preset[key]) if len(parts) == 1 else {}
            found |= {key: inner} if inner else {}
    return found


def _text(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _other_environments(run: RunFiles) -> Raw | None:
    """Stages that ran elsewhere than the run's manifest says."""
    rows = []
    for stage in run.stages:
        there = mapping(stage.manifest.get("environment"))
        for key in sorted({*there, *run.environment} if there and run.environment else {}):
            if there.get(key) != run.environment.get(key):
                rows.append([stage.name, key, _text(there.get(key)), _text(run.environment.get(key))])
    if not rows:
        return None
    return el("div", el("h3", "Stages that ran elsewhere"), table(["stage", "", "there", "the run's manifest"], rows))
