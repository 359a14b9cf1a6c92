"""The first signal asks, the second Ctrl-C insists."""

from __future__ import annotations

import os
import signal
import threading

import pytest

from trimtab.runtime.signals import StopFlag, stop_flag


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_first_asks_second_ctrl_c_insists(number: signal.Signals) -> None:
    said: list[str] = []
    before = signal.getsignal(signal.SIGINT)
    with stop_flag(said.append) as stop:
        assert stop() == ""
        os.kill(os.getpid(), number)
        assert stop() == number.name
        os.kill(os.getpid(), signal.SIGTERM)  # a service manager repeating itself changes nothing
        assert stop() == number.name
        assert len(said) == 1 and "next boundary" in said[0]
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_outside_the_main_thread_it_never_rises() -> None:
    seen: list[StopFlag] = []

    def work() -> None:
        with stop_flag() as stop:
            seen.append(stop)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen[0]() == ""
