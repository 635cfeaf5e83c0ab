"""Conversations that are spoilt by chance, always the same ones; `interop/fuzz.py` goes on for as long as you like."""

import importlib.util
import logging
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[3] / "interop" / "fuzz.py"


@pytest.fixture(scope="module")
def fuzz():
    spec = importlib.util.spec_from_file_location("ketch_fuzz", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    path = list(sys.path)
    spec.loader.exec_module(module)
    sys.path[:] = path
    return module


@pytest.fixture(autouse=True)
def quiet(caplog):
    caplog.set_level(logging.CRITICAL, "ketch")


@pytest.mark.parametrize("first", range(0, 1200, 100))
def test_spoilt_conversations_break_nothing(fuzz, first):
    for seed in range(first, first + 100):
        try:
            fuzz.one(seed)
        except Exception as error:
            raise AssertionError(f"python interop/fuzz.py --seed {seed} fails") from error
