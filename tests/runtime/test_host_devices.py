from immunax.runtime.host_devices import make_room

FLAG = "--xla_force_host_platform_device_count"


def test_the_pool_grows_with_the_forced_devices():
    forced = {"XLA_FLAGS": f"--other {FLAG}=8"}
    make_room(environment=forced)
    assert int(forced["PJRT_NPROC"]) >= 64


def test_nothing_is_set_for_one_device_or_over_a_users_choice():
    for environment in ({}, {"XLA_FLAGS": f"{FLAG}=1"}, {"XLA_FLAGS": f"{FLAG}=8", "PJRT_NPROC": "9"}):
        before = dict(environment)
        make_room(environment=environment)
        assert environment == before


def test_members_that_never_wait_for_one_another_need_no_room():
    for sizes, wide in (
        ({"attack": 2}, False),
        ({"attack": 2, "data": 1, "fsdp": 2}, True),
        ({"attack": 1, "data": -1}, True),
    ):
        environment = {"XLA_FLAGS": f"{FLAG}=2"}
        make_room(sizes, environment)
        assert ("PJRT_NPROC" in environment) == wide
