"""Scorers for `--model python:...` that do what a text tells them: end their process, raise, hang, fail once."""

import ctypes
import os
import time
import zlib
from collections.abc import Sequence
from pathlib import Path


def score(_queries: Sequence[str], texts: Sequence[str]) -> list[float]:
    """A score that depends on the text alone, after whatever the texts ask for."""
    for text in texts:
        _obey(text)
    return [zlib.crc32(text.encode()) / 2**32 for text in texts]


def _obey(text: str) -> None:
    words = text.split()
    if "EXIT" in words:
        os._exit(3)
    if "SEGFAULT" in words:
        ctypes.string_at(0)
    if "RAISE" in words:
        raise ValueError("no score for this text")
    if "HANG" in words:
        time.sleep(3600)
    if "SLOW" in words:
        time.sleep(0.05)
    for word in words:
        what, _, path = word.partition("=")
        if what in {"EXIT-ONCE", "CUDA-ONCE", "RESET-ONCE", "SLEEP-ONCE"} and not Path(path).exists():
            Path(path).write_text(str(os.getpid()))
            _once(what)


def _once(what: str) -> None:
    if what == "EXIT-ONCE":
        os._exit(1)
    if what == "SLEEP-ONCE":
        time.sleep(3600)
    if what == "CUDA-ONCE":
        raise RuntimeError("CUDA error: an illegal memory access was encountered")
    raise ConnectionResetError("the other end went away")
