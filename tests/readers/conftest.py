"""A few examples of each property with every test run, the same ones each time; thousands of new ones by `-m fuzz`."""

import os

import pytest
from hypothesis import HealthCheck, settings

from .guard import TRIED

_QUIET = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.function_scoped_fixture]
_COMMON = {"deadline": None, "database": None, "suppress_health_check": _QUIET}
settings.register_profile("few", max_examples=15, derandomize=True, **_COMMON)
settings.register_profile("fuzz", max_examples=int(os.environ.get("FUZZ_EXAMPLES", "2000")), print_blob=True, **_COMMON)


def pytest_configure(config):
    settings.load_profile("fuzz" if config.option.markexpr == "fuzz" else "few")


def pytest_collection_modifyitems(items):
    for item in items:
        if "tests/readers" in item.path.as_posix():
            item.add_marker(pytest.mark.fuzz)


def pytest_terminal_summary(terminalreporter):
    for reader, (tried, refused) in sorted(TRIED.items()):
        terminalreporter.write_line(f"{reader:<24} {tried:6} inputs, {refused:6} refused in one line")
