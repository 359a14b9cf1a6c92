"""Trunk activations of rows that are read more than once: computed once, in a fixed order, and kept."""

from __future__ import annotations

from collections.abc import Sequence as Seq
from dataclasses import replace

import torch

from trimtab.batch import Sequence, flatten
from trimtab.models.bundle import Bundle


@torch.no_grad()
def with_trunk(bundle: Bundle, rows: Seq[Sequence], token_budget: int, keep_bytes: int = 1 << 30) -> list[Sequence]:
    """Rows that carry their ``trunk_TD``, if there is a trunk and they fit into ``keep_bytes``; else as they came.

    The forwards are composed in the order of ``rows`` by ``token_budget`` alone, so a resumed run computes the same
    bits.
    """
    if bundle.trunk is None or not rows:
        return list(rows)
    size = sum(len(row.ids) for row in rows) * bundle.width * bundle.lm.dtype.itemsize
    if size > keep_bytes:
        return list(rows)
    bare = [replace(row, unit=None, columns={}, token_columns={}) for row in rows]
    kept: list[torch.Tensor] = []
    for micro in flatten(bare).micro_batches(token_budget):
        trunk_TD = bundle.trunk_TD(micro.to(bundle.device))
        assert trunk_TD is not None
        kept += torch.split(trunk_TD.cpu(), micro.lengths_N.tolist())
    return [
        replace(row, token_columns={**row.token_columns, "trunk_TD": part})
        for row, part in zip(rows, kept, strict=True)
    ]
