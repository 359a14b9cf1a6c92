"""The command line: what it prints, what it exits with, and that starting it brings no torch."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from trimtab import errors
from trimtab.apps import cli_verbs
from trimtab.apps.cli import main, split_overrides


@pytest.mark.parametrize("argument", ["--help", "run --help", "models", "check quickstart", "show quickstart"])
def test_no_torch_at_start(argument: str) -> None:
    code = (
        "import sys; from trimtab.apps.cli import main\n"
        f"try: main({argument.split()!r})\nexcept SystemExit: pass\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_overrides_may_stand_anywhere_after_the_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", "seed=3", "quickstart", "stages.sft.epochs=2"]) == 0
    out = capsys.readouterr().out
    assert "seed: 3" in out and "epochs: 2" in out
    rest, overrides = split_overrides(["q", "a.b=1", "--dir", "x=y", "--inexact", "c=d", "./e=f.yaml", "--from=sft"])
    assert overrides == ["a.b=1", "c=d"]
    assert rest == ["q", "--dir", "x=y", "--inexact", "./e=f.yaml", "--from=sft"]


def test_check_says_the_order_and_what_nobody_reads(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "quickstart", "models.spare={load: x}"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "sft: sft of base, films.demonstrations -> language model"
    assert lines[-2:] == ["note: no stage reads models.spare", "quickstart: 4 stages, nothing wrong"]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (["check", "quikstart"], 2, "did you mean 'quickstart'?"),
        (["check", "quickstart", "stages.policy.kll=1"], 2, "override 1 key 'stages.policy.kll'"),
        (["data", "quickstart", "film.demonstrations"], 2, "did you mean 'films'?"),
        (["data", "quickstart", "--model", "bse"], 2, "did you mean 'base'?"),
        (["report", "."], 3, "this is no run directory"),
    ],
)
def test_errors_are_for_people(
    arguments: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    assert main([*arguments[:-1], str(tmp_path)] if arguments[0] == "report" else arguments) == code
    err = capsys.readouterr().err
    assert says in err and err.startswith("trimtab: ") and "Traceback" not in err


@pytest.mark.parametrize("arguments", [[], ["chekc"], ["check"], ["check", "quickstart", "foo"], ["models", "a=b"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2 and "usage: trimtab" in capsys.readouterr().err


def test_ctrl_c_exits_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli_verbs, "load", stopped)
    assert main(["check", "quickstart"]) == 130


def test_a_closed_pipe_is_quiet() -> None:
    process = subprocess.run(
        f"'{sys.executable}' -m trimtab show quickstart | head -n 1", shell=True, capture_output=True, text=True
    )
    assert process.stdout == "name: quickstart\n" and process.stderr == ""


def test_the_docs_list_every_exit_code() -> None:
    text = (Path(__file__).parents[2] / "docs" / "cli.md").read_text(encoding="utf-8")
    table = {int(line.split("|")[1]) for line in text.splitlines() if line.startswith("| ") and line[2].isdigit()}
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TrimtabError)]
    assert table == {0, 130, *(kind.exit_code for kind in kinds)}


def test_rows_are_printed_with_their_trained_tokens_marked(capsys: pytest.CaptureFixture[str]) -> None:
    cli_verbs.print_row("d.x 1", [("demonstration", [("<u>", False), ("Hi\n", False), ("yes", True), ("</s>", True)])])
    assert capsys.readouterr().out == "\nd.x 1, demonstration: 4 pieces, 2 marked\n<u>Hi⏎\n⟦yes</s>⟧\n"
