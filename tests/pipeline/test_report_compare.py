"""Several runs on one page: what differs is named, what is the same is paired, nothing is loaded from elsewhere."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pipeline.made_run import Page, make_run, save
from trimtab.apps.cli import main
from trimtab.errors import DataError
from trimtab.pipeline.report_compare import names_of, write_comparison


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Two runs with the same prompts; the second has another β, another torch, and better answers."""
    folder = tmp_path_factory.mktemp("runs")
    first, second = (
        make_run(folder / "plain", versions=6, updates=20),
        make_run(folder / "kinder", versions=6, updates=20),
    )
    recipe = second / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 1e-4", "lr: 3e-4"), encoding="utf-8")
    save(second / "manifest.json", {"environment": {"torch": "2.14.0", "threads": 2, "cpu": "Some CPU"}})
    pairs = second / "stages" / "verdict" / "samples" / "pairs.json"
    rows = json.loads(pairs.read_text())
    for row in rows:
        row["candidate"]["scores"]["vader"] += 0.25
    save(pairs, rows)
    return first, second


def test_what_differs_and_what_is_paired(runs: tuple[Path, Path], tmp_path: Path) -> None:
    page = Page(write_comparison(runs, tmp_path / "c.html").read_text(encoding="utf-8"))
    text = page.text
    assert "stages.sft.optimizer.lr" in text and "0.0001" in text and "0.0003" in text
    assert "2.13.0" in text and "2.14.0" in text and "Some CPU" not in text, "only what differs is listed"
    assert "96 prompts in common" in text and "+0.250 [+0.250, +0.250]" in text
    assert "Reward models on 60 held-out comparisons in common" in text
    assert {
        "KL–reward frontier",
        "KL to the reference",
        "Loss of minibatches",
        "vader",
        "words per answer",
    } <= page.figures()
    assert text.count("policy against sft") == 2, "both verdicts stand side by side"


def test_the_page_is_self_contained(runs: tuple[Path, Path], tmp_path: Path) -> None:
    out = write_comparison(runs, tmp_path / "c.html")
    html = out.read_text(encoding="utf-8")
    page = Page(html)
    assert not [tag for tag, _ in page.tags if tag in ("script", "link", "img", "iframe", "object", "base", "form")]
    assert "url(" not in html and "@import" not in html and "http://" not in html and "https://" not in html
    assert not [a for _, attrs in page.tags for a in attrs if a in ("src", "srcset", "style") or a.startswith("on")]
    anchors = {str(attrs["id"]) for _, attrs in page.tags if attrs.get("id")}
    assert {str(attrs["href"])[1:] for tag, attrs in page.tags if tag == "a"} <= anchors
    assert write_comparison(runs, out).read_text(encoding="utf-8") == html, "the same files give the same bytes"


def test_the_same_id_with_other_tokens_is_another_prompt(runs: tuple[Path, Path], tmp_path: Path) -> None:
    copies = [shutil.copytree(run, tmp_path / run.name) for run in runs]
    for number, run in enumerate(copies):
        rows = json.loads((run / "stages" / "verdict" / "samples" / "pairs.json").read_text())
        # the first 40 prompts end in the same tokens in both runs
        answers = [
            {"prompt_id": row["prompt_id"], "prompt_ids": [1, 2, 3 if i < 40 else 4 + number]}
            for i, row in enumerate(rows)
        ]
        save(run / "stages" / "verdict" / "answers-candidate.json", {"answers": answers})
    assert "40 prompts in common" in Page(write_comparison(copies, tmp_path / "c.html").read_text()).text


def test_runs_that_share_nothing(runs: tuple[Path, Path], tmp_path: Path) -> None:
    """An empty folder beside a whole run: what there is, is shown; a run keeps its look."""
    (tmp_path / "empty").mkdir()
    page = Page(write_comparison([tmp_path / "empty", runs[0]], tmp_path / "c.html").read_text(encoding="utf-8"))
    assert "recipe.yaml is missing" in page.text and "KL to the reference" in page.figures()
    assert [attrs for tag, attrs in page.tags if tag == "path" and attrs.get("class") == "line c2"]


def test_names(tmp_path: Path) -> None:
    assert names_of([Path("/x/a"), Path("/x/b")]) == ["a", "b"]
    assert names_of([Path("/x/run"), Path("/y/run")]) == ["x/run", "y/run"]
    assert names_of([Path("/x/run"), Path("/x/run")]) == ["1 run", "2 run"]
    with pytest.raises(DataError, match="7 runs"):
        write_comparison([tmp_path] * 7, tmp_path / "c.html")


def test_from_the_command_line(
    runs: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", *map(str, runs)]) == 0 and (tmp_path / "comparison.html").is_file()
    assert "report: comparison.html" in capsys.readouterr().out
    assert main(["report", str(runs[0])]) == 0 and (runs[0] / "report.html").is_file()
    assert main(["report", str(runs[0]), str(tmp_path)]) == 3 and "no recipe.yaml" in capsys.readouterr().err
