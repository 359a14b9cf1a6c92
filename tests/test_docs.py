"""Documentation that cannot lie: commands parse, targets and links exist, recipes load, tables are the tested ones."""

from __future__ import annotations

import re
import shlex
from fnmatch import fnmatch
from pathlib import Path

import pytest

from test_floors import FLOORS

ROOT = Path(__file__).resolve().parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```", re.MULTILINE | re.DOTALL)


def blocks(page: Path, language: str) -> list[str]:
    return [body for kind, body in FENCE.findall(page.read_text(encoding="utf-8")) if kind == language]


def commands(page: Path, program: str) -> list[list[str]]:
    """Arguments of every shown call of ``program``: ``sh`` blocks, comments and line continuations understood."""
    found = []
    for block in blocks(page, "sh"):
        for line in block.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and (words[0] == "$" or re.fullmatch(r"[A-Z_]+=.*", words[0])):
                words = words[1:]
            if words and words[0] == program:
                found.append(words[1:])
    return found


def shown(program: str) -> list[object]:
    return [
        pytest.param(words, id=f"{page.name}: {' '.join(words)}") for page in PAGES for words in commands(page, program)
    ]


@pytest.mark.parametrize("words", shown("trimtab"))
def test_shown_commands_parse(words: list[str]) -> None:
    from trimtab.apps.cli import parser

    try:
        parser().parse_args(words)
    except SystemExit as exit:
        assert exit.code == 0, f"trimtab {' '.join(words)}"


@pytest.mark.parametrize("words", shown("make"))
def test_shown_make_targets_exist(words: list[str]) -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    for word in words:
        assert "=" in word or word in targets, f"make has no target {word}"


def test_the_readme_shows_both_commands() -> None:
    """Guards the two tests above against passing because they found nothing."""
    readme = ROOT / "README.md"
    assert ["demo"] in commands(readme, "make") and ["test"] in commands(readme, "make")
    assert any(words[0] == "run" for words in commands(readme, "trimtab"))


def test_shown_recipes_load(tmp_path: Path) -> None:
    """Every ``yaml`` block of the README is a whole recipe that can be run as it stands."""
    from trimtab.pipeline.recipe import load

    recipes = blocks(ROOT / "README.md", "yaml")
    assert recipes
    for number, text in enumerate(recipes):
        file = tmp_path / f"{number}.yaml"
        file.write_text(text, encoding="utf-8")
        assert load(file).stages


def anchor(heading: str) -> str:
    """A heading's anchor, as the usual Markdown hosts make it."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = FENCE.sub("", page.read_text(encoding="utf-8"))
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, fragment = target.partition("#")
        there = (page.parent / file).resolve() if file else page
        assert there.exists(), f"{page.name} links to {target}"
        if fragment and there.suffix == ".md":
            headings = re.findall(r"^#+ (.*)$", FENCE.sub("", there.read_text(encoding="utf-8")), re.MULTILINE)
            assert fragment in {anchor(heading) for heading in headings}, f"{page.name} links to {target}"


def test_named_files_exist() -> None:
    """`x/y.py` in the contributing page is somewhere below the package or the root; `*` and `<name>` match any name."""
    text = FENCE.sub("", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    files = [str(path.relative_to(ROOT)) for place in ("src", "tests") for path in (ROOT / place).rglob("*")]
    files += [path.name for path in ROOT.iterdir()]
    for name in re.findall(r"`([\w.*/<>-]+(?:/|\.py|\.txt|\.toml))`", text):
        pattern = re.sub(r"<\w+>", "*", name).rstrip("/")
        assert any(fnmatch(f"/{file}", f"*/{pattern}") for file in files), f"CONTRIBUTING.md names {name}"


def test_the_floor_table_is_the_tested_one() -> None:
    [table] = [block for block in blocks(ROOT / "docs" / "architecture.md", "") if "src/trimtab/" in block]
    floors = {}
    for line in table.splitlines():
        row = re.match(r"\s+(\d)\s(.*)", line)
        if row:
            units = re.split(r"\s{2,}", row[2].strip())[0]  # what follows two spaces explains them
            floors.update({name: int(row[1]) for name in re.findall(r"\w+", units)})
    assert floors == FLOORS


def test_every_exit_code_is_documented() -> None:
    from trimtab import errors
    from trimtab.apps.cli import KILLED_BY_CTRL_C

    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    table = (ROOT / "docs" / "cli.md").read_text(encoding="utf-8").partition("## Exit codes")[2]
    rows = [int(code) for code in re.findall(r"^\| (\d+) \|", table, re.MULTILINE)]
    assert rows == sorted({0, KILLED_BY_CTRL_C, *(kind.exit_code for kind in kinds)})
