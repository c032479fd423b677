import os
import signal
import threading

import pytest

from immunax.runtime.preemption import Preemption


def test_sigterm_raises_the_flag_and_the_old_handler_comes_back():
    before = signal.getsignal(signal.SIGTERM)
    with Preemption() as preemption:
        assert not preemption.requested
        os.kill(os.getpid(), signal.SIGTERM)
        assert preemption.requested
        assert preemption.signal_name == "SIGTERM"
    assert signal.getsignal(signal.SIGTERM) is before


def test_the_second_interrupt_stops_at_once():
    with Preemption() as preemption:
        signal.raise_signal(signal.SIGINT)
        assert preemption.requested
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_outside_the_main_thread_the_flag_stays_down():
    seen = []

    def work():
        with Preemption() as preemption:
            seen.append(preemption.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == [False]
