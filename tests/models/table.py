"""The table of families in docs/models.md, measured. ``PYTHONPATH=src:tests python tests/models/table.py`` rewrites it.

``test_families.py`` measures again and compares, so the page cannot say what is not so.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from models.families import ALL, LAYERS, NAMES, make_lm
from trimtab.batch import Sequence, flatten
from trimtab.errors import ModelError
from trimtab.models.bundle import Bundle
from trimtab.models.load import probe
from trimtab.protocols import LoRASpec

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"
BEGIN, END = "<!-- measured by tests/models/table.py -->", "<!-- end -->"


@dataclass(frozen=True)
class Found:
    """What one family can do: attention, whether a trunk and branch are the whole model, whether adapters work."""

    attention: str
    hydra: bool
    lora: bool

    def row(self, name: str) -> str:
        yes = {True: "yes", False: "no"}
        return f"| {name} | {self.attention} | {yes[self.hydra]} | {yes[self.lora]} |"


def measure(family: str) -> Found:
    """Of a tiny random model: hydra at every split in both precisions, LoRA on every matrix."""
    attention = probe(make_lm(family))
    return Found(attention, _splits(family), _adapts(family))


def _splits(family: str) -> bool:
    try:
        for dtype in (torch.float32, torch.bfloat16):
            lm = make_lm(family, dtype)
            mode = probe(lm)
            for k in range(1, LAYERS):
                Bundle(lm, mode, k)  # compares with the whole model, bit for bit
    except ModelError:
        return False
    return True


def _adapts(family: str) -> bool:
    """The adapter starts as nothing, gets a gradient in every tensor, and merged is what it was apart."""
    lm = make_lm(family)
    bundle = Bundle(lm, probe(lm), None, LoRASpec(r=2))
    bundle.add_policy()
    bundle.add_reference()
    batch = flatten([Sequence(list(range(3, 3 + n)), [i > 0 for i in range(n)]) for n in (12, 5)])
    out = bundle(("policy", "reference"), batch)
    same = torch.equal(out["policy"]["logp_T"], out["reference"]["logp_T"])
    adapter = bundle.trained("policy")
    with torch.no_grad():
        for parameter in adapter.values():
            parameter.add_(0.05 * torch.randn_like(parameter))
    apart = bundle(("policy",), batch)["policy"]["logp_T"]
    apart.sum().backward()
    learns = all(bool((p.grad != 0).any()) for p in adapter.values() if p.grad is not None or not p.requires_grad)
    learns = learns and all(p.grad is not None for p in adapter.values())
    whole = Bundle(bundle.saved_lm(), bundle.mode, None)
    whole.add_policy()
    with torch.no_grad():
        merged = whole(("policy",), batch)["policy"]["logp_T"]
    moved = float((apart - out["reference"]["logp_T"]).abs().max().detach())
    return same and learns and moved > 1e-3 and torch.allclose(merged, apart, atol=1e-5, rtol=1e-5)


def table() -> str:
    head = "| family | attention | hydra | lora |\n|---|---|---|---|"
    return "\n".join([head, *(measure(family).row(NAMES[family]) for family in ALL)])


def shown() -> str:
    """The table as it stands on the page."""
    return PAGE.read_text(encoding="utf-8").partition(BEGIN)[2].partition(END)[0].strip()


if __name__ == "__main__":
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{table()}\n{END}{rest.partition(END)[2]}", encoding="utf-8")
