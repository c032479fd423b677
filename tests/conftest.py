"""Eight forced CPU devices for every test, set before anything imports jax."""

import os
import random
import time

import buckets
import pytest
import quick
import warm

from immunax.runtime.host_devices import make_room

_DEVICES = "--xla_force_host_platform_device_count"

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ.pop("HYDRA_FULL_ERROR", None)
_kept = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if not flag.startswith(_DEVICES)]
os.environ["XLA_FLAGS"] = " ".join([quick.FLAGS, *_kept, f"{_DEVICES}=8"])
make_room()


_BEGIN = time.monotonic()


def pytest_addoption(parser):
    """A run of slow tests, an hour and more on a slow machine, may be held to a time and have another part of them each time."""
    parser.addoption("--minutes", type=float, help="skip the tests that have not begun by then")
    parser.addoption("--shuffle", metavar="SEED", help="take the files in an order drawn from this text")


def pytest_collection_modifyitems(config, items):
    """The files that take minutes come first, so that no worker waits for another at the end; or all in a drawn order."""
    seed = config.getoption("shuffle")
    if seed is None:
        items.sort(key=lambda item: item.path.parent.name != "system")
    else:
        items.sort(key=lambda item: random.Random(f"{seed} {item.location[0]}").random())


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """A test that would begin too late is skipped before its fixtures are made."""
    minutes = item.config.getoption("minutes")
    if minutes is not None and time.monotonic() - _BEGIN > 60 * minutes:
        pytest.skip(f"not begun within --minutes={minutes:g}")


@pytest.fixture(autouse=True, scope="module")
def _room_for_programs():
    """All files of tests compile more programs than a process may hold."""
    from immunax.runtime import memory_maps  # it imports jax, which has to see the variables above

    yield
    memory_maps.release_if_crowded()


@pytest.fixture(scope="module")
def compile_fast():
    """For files whose programs run for milliseconds and take seconds to optimise."""
    import jax  # it has to see the variables above

    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="module")
def commands():
    """Runs whole commands in forks of one process."""
    started = warm.Commands()
    yield started
    started.close()


@pytest.fixture(scope="session")
def bucket_server(tmp_path_factory):
    """The address of a server of buckets; tests make their own bucket there."""
    with buckets.served(tmp_path_factory.mktemp("buckets")) as url:
        yield url
