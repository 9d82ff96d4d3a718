"""A rollout of the whole instance under load: nobody who resumes sees an error, and nobody loses a token."""

import pytest

from tests.support.log_lines import wrong_lines
from tests.support.machine import slowness
from tests.support.redis import RedisServer
from tests.support.rollout import SDK_CLIENTS, Rollout


@pytest.mark.slow
async def test_a_second_instance_takes_over_from_the_first_and_nobody_loses_a_token() -> None:
    with RedisServer() as redis:
        rollout = Rollout(redis.url, slower=slowness())
        await rollout.run()
    assert rollout.sdk == {"complete": SDK_CLIENTS}
    # All who were on the first instance were asked to move, and streams were handed over.
    assert rollout.reasons["reconnect drain"] >= rollout.streams
    assert "took a stream over" in rollout.logs[-1]
    # Nobody was refused for long, and with nothing but 503 and a time to come back at.
    assert rollout.reasons.get("503", 0) < 2 * len(rollout.clients)
    refusals = {"503", "cut: ClientOSError", "cut: ServerDisconnectedError"}
    assert rollout.reasons.keys() <= {"reconnect drain", "end", *refusals}
    assert [line for log in rollout.logs for line in wrong_lines(log)] == []
