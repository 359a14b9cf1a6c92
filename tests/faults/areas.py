"""The areas of the fault matrix by name, as the table of docs/reliability.md says them. Torch-free."""

from __future__ import annotations

TITLES: dict[str, str] = {
    "saves": "SIGKILL before every file operation of a save, and in the middle of writes",
    "moments": "SIGKILL at random moments of every stage; ten kills in one run",
    "signals": "SIGTERM, SIGINT, SIGUSR1, two Ctrl-C, in five places",
    "space": "no room, no permission, a disk that fails",
    "damage": "flipped bits, truncation, deletion, another step's files",
    "numbers": "numbers that are not finite, at thirteen sites",
    "drivers": "two drivers of one run",
    "drift": "something changed between two starts: named?",
    "steps": "a step of the save protocol undone: noticed?",
}
