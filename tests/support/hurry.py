"""Shorter waits in the product's own processes, where it has no setting for them: see `inside_env`."""

PING_SECONDS, PONG_SECONDS = 1.0, 2.0


def socket_pings() -> None:
    """A WebSocket's pings, and how long one may stay without an answer."""
    from app.worker import SluiceWorker

    assert {"ws_ping_interval", "ws_ping_timeout"} <= SluiceWorker.CONFIG_KWARGS.keys()
    SluiceWorker.CONFIG_KWARGS |= {"ws_ping_interval": PING_SECONDS, "ws_ping_timeout": PONG_SECONDS}
