"""Datasets of the Hugging Face hub, or of a folder that ``datasets`` saved. The only file that imports ``datasets``.

``hf:owner/name``, with ``?config=...&split=...&revision=...`` after it where the defaults are not meant: the split is
``train``, the configuration the dataset's only one, and the revision whatever the hub has today (pin it).
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from trimtab.data.files import Raw
from trimtab.errors import DataError, Where
from trimtab.schema import did_you_mean

HUB = "hf:"
OPTIONS = ("config", "split", "revision")
_SAVED = ("state.json", "dataset_dict.json")
"""Files that ``save_to_disk`` leaves in a folder."""


def read_hub(source: str, base: Path | None = None) -> tuple[str, list[Raw]]:
    """The source as messages name it, and every row of one split.

    Args:
        source: ``hf:owner/name?split=test``, or ``hf:./folder`` for one that ``save_to_disk`` wrote.
        base: folder that a relative folder starts from; None = the current one.

    Raises:
        DataError: ``datasets`` is not installed, the source cannot be read, or there is no such split or option.
    """
    name, options = _options(source)
    split = options.get("split", "train")
    where = Where(source)
    try:
        import datasets  # pyright: ignore[reportMissingImports]  # an extra: files need none of it
        from datasets.exceptions import DatasetsError  # pyright: ignore[reportMissingImports]
    except ImportError as error:
        raise DataError("hf: sources need datasets", where=where, fix="pip install 'trimtab[hub]'") from error
    folder = (base or Path()) / Path(name).expanduser()
    try:
        if folder.is_dir() and any((folder / file).is_file() for file in _SAVED):
            found: Any = datasets.load_from_disk(str(folder))
        else:
            path = str(folder) if folder.is_dir() else name
            found = datasets.load_dataset(path, options.get("config"), revision=options.get("revision"))
    except (OSError, ValueError, DatasetsError) as error:
        offline = ", and HF_HUB_OFFLINE is set" if os.environ.get("HF_HUB_OFFLINE") else ""
        fix = f"check the id, the configuration and the network{offline}; or download the files and name them"
        raise DataError(f"the dataset cannot be read: {error}", where=where, fix=fix) from error
    if hasattr(found, "keys"):
        if split not in found:
            raise DataError(f"the dataset has no split '{split}'", where=where, fix=did_you_mean(split, found.keys()))
        found = found[split]
    elif "split" in options and str(getattr(found, "split", None)) != split:
        raise DataError(f"the folder holds one split, and it is not called '{split}'", where=where, fix="leave it out")
    return source, [Raw(Where(source, key=f"[{i}]"), dict(row)) for i, row in enumerate(found)]


def _options(source: str) -> tuple[str, dict[str, str]]:
    name, _, query = source.removeprefix(HUB).partition("?")
    if not name:
        raise DataError("no dataset is named", where=Where(source), fix="write hf:owner/name")
    options = dict(parse_qsl(query, keep_blank_values=True))
    for key in options:
        if key not in OPTIONS:
            raise DataError(f"unknown option '{key}'", where=Where(source), fix=did_you_mean(key, OPTIONS))
    return name, options
