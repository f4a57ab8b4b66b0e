"""Ctrl-C at every stage: answered at once, in one line, whatever C++ code is running."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from jaxcrnn.runs import signals

# Code that keeps Python from handling signals, as the compiler does: it runs for minutes without the interpreter.
STUCK = "hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
# A function called by C code, which swallows exceptions: jax has one that the garbage collector calls.
SWALLOWED = """
class Freed:
    def __del__(self):
        print("ready", flush=True)
        time.sleep(60)
Freed()
time.sleep(60)
"""


def program(*lines):
    """Start a program that is guarded, and wait until it is ready."""
    code = "import hashlib, time\nfrom jaxcrnn.runs import signals\nsignals.guard()\n" + "\n".join(lines)
    started = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert started.stdout.readline() == "ready\n"
    time.sleep(0.05)
    return started


def ended(started, within):
    """Exit code and stderr of a program that ends within so many seconds."""
    began = time.monotonic()
    try:
        _, errors = started.communicate(timeout=30)
    finally:
        started.kill()
    assert time.monotonic() - began < within
    return started.returncode, errors


def test_interrupt_during_imports():
    starting = program("print('ready', flush=True)", STUCK.replace("10**9", "10**3"), "time.sleep(60)")
    starting.send_signal(signal.SIGINT)
    assert ended(starting, 2) == (130, "jaxcrnn: interrupted\n")


def test_interrupt_in_a_callback_that_swallows_exceptions():
    running = program("signals.started()", SWALLOWED)
    running.send_signal(signal.SIGINT)
    assert ended(running, 2) == (130, "jaxcrnn: interrupted\n")


@pytest.mark.slow
def test_interrupt_in_native_code(tmp_path):
    (tmp_path / "unused").touch()
    undo = f"signals.before_exit.append(lambda: os.unlink({str(tmp_path / 'unused')!r}))"
    running = program("import os", undo, "signals.started()", "print('ready', flush=True)", STUCK)
    running.send_signal(signal.SIGINT)
    assert ended(running, 5) == (130, "jaxcrnn: interrupted\n")
    assert not (tmp_path / "unused").exists()


@pytest.mark.slow
def test_second_interrupt_ends_training():
    loop = "with signals.stop_flag(alone=True): print('ready', flush=True);" + STUCK
    training = program("signals.started()", loop)
    for _ in range(2):  # a terminal and a launcher may both send one
        training.send_signal(signal.SIGINT)
    time.sleep(signals.TOGETHER + signals.STUCK + 0.5)
    assert training.poll() is None
    for _ in range(2):
        training.send_signal(signal.SIGTERM)
    training.send_signal(signal.SIGINT)
    code, errors = ended(training, 2)
    assert code == 130
    assert errors.splitlines() == [
        "jaxcrnn: stopping after the current step; press Ctrl-C again to exit at once, without saving",
        "jaxcrnn: interrupted again; exiting at once, checkpoints on disk are intact",
    ]


@pytest.mark.parametrize("number", signals.PREEMPTED)
def test_signal_ends_the_wait_for_the_compiler(number):
    finish = threading.Event()
    with signals.stop_flag(alone=True) as stopping:
        assert stopping.interruptible(lambda: 7) == 7
        with pytest.raises(ZeroDivisionError):
            stopping.interruptible(lambda: 1 // 0)
        threading.Timer(0.05, os.kill, (os.getpid(), number)).start()
        with pytest.raises(signals.SignalReceived):
            stopping.interruptible(lambda: finish.wait(30))
        with pytest.raises(signals.SignalReceived):  # the call does not start
            stopping.interruptible(lambda: finish.wait(30))
        finish.set()
        assert stopping == [number]
        os.kill(os.getpid(), number)  # while the state is saved
        assert stopping == [number, number]
    assert not signals.must_leave()
