"""What bench/capacity.py works out of what it has measured."""

from bench.capacity import Cost, Wanted, plan, wanted

COST = Cost(service=200.0, redis=42.0, log=7_000.0, session=7_900.0, count=4.0)


def test_what_many_sessions_want_is_what_the_scarcest_thing_wants() -> None:
    assert wanted(1_000, 1, COST) == Wanted(1_000, 1, 1, 0.042, 7_900_000, 7_000_000, "none")
    fast = wanted(1_000, 1 / 30, COST)
    assert (fast.services, fast.groups, fast.first) == (6, 2, "Redis' thread")
    many = wanted(100_000, 1, COST)
    assert (many.services, many.groups, many.first) == (20, 5, "Redis' thread")
    idle = wanted(10_000_000, 60, COST)
    assert (idle.services, idle.groups, idle.first) == (54, 54, "the count for /metrics"), "a service a group at least"
    most = wanted(10_000_000, 1, COST)
    assert (most.services, most.groups, most.first) == (2_000, 420, "Redis' thread")


def test_the_plan_says_a_line_for_each() -> None:
    assert "420     100%  79.00 GB  70,000 MB/s  Redis' thread" in plan(COST)
    assert len(plan(COST).splitlines()) == 8
