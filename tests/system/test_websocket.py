"""WebSockets through the real chain: answers, conversations that several sockets hear, and ways back to a stream."""

import os
import secrets
import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.support.browser import Browser
from tests.support.call import ask
from tests.support.chain import Chain
from tests.support.log_lines import wrong_lines
from tests.support.raw_socket import RawSocket
from tests.support.redis import RedisServer
from tests.support.socket_client import SocketClient, read_to_end, text_of
from tests.support.workers import all_active_streams, producing_worker, sockets, until, until_replaced

GENERATE = "/api/v1/ws/generate"
PACE = {"tokens": 60, "tokens_per_second": 30, "first_token_ms": 0, "seed": 5}
LONG = PACE | {"tokens": 3000}
TOKENS_BEFORE = 30  # in the second before the restart
SHORT = {"SLUICE_SEND_SECONDS": "2"}
FAST = {"tokens": 5, "tokens_per_second": 0, "first_token_ms": 0}


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with RedisServer() as server, Chain({"SLUICE_STREAM_LOG": server.url} | SHORT) as running:
        yield running


def chat() -> str:
    return f"/api/v1/ws/chat/{secrets.token_hex(8)}"


def whole(chain: Chain, simulator: dict[str, Any], prompt: str = "Hello") -> str:
    """What the same question gets as one JSON document."""
    at_once = simulator | {"tokens_per_second": 0}
    return str(ask(chain.url, "/api/v1/generate", {"prompt": prompt, "simulator": at_once}).json["response"])


def test_prompts_are_answered_one_after_the_other_on_one_socket(chain: Chain) -> None:
    with SocketClient(chain.url, GENERATE) as client:
        for said in ({"prompt": "Hello"}, {"type": "message", "prompt": "Hello"}, {"message": "Hello"}):
            client.messages.clear()
            client.say(simulator=FAST, **said).until("end")
            kinds = [message["type"] for message in client.messages]
            assert kinds == ["start", *["token"] * 5, "end"]
            assert client.text == whole(chain, FAST)
            stream_id = client.messages[0]["stream_id"]
            ids = [message["id"] for message in client.messages[1:]]
            assert ids == [f"{stream_id}.0.{seq}" for seq in range(1, 7)]
            assert client.messages[-1]["usage"] == {"input_tokens": 1, "output_tokens": 5}
        client.say(type="ping").until("pong")


def test_every_socket_of_a_conversation_sees_the_same_stream_whichever_worker_has_it(chain: Chain) -> None:
    until_replaced(chain, set())
    first, second = sockets(chain)
    path = chat()
    with SocketClient(first, path) as a, SocketClient(second, path) as b, SocketClient(first, path) as c:
        for speaker, said in ((a, "one"), (b, "two")):
            speaker.say(type="message", message=said, simulator=FAST)
            for client in (a, b, c):
                client.messages.clear()
                client.until("end")
                assert client.messages[0]["message"] == said
            assert a.messages == b.messages == c.messages
        # Its own words, and those before with their answers.
        assert a.messages[-1]["usage"]["input_tokens"] == 1 + 5 + 1
        a.say(type="message", message="three", simulator=PACE).until("token")
        b.until("start").say(type="message", message="four").until("error")
        assert b.messages[-1]["code"] == "busy"
    with SocketClient(chain.url, chat()) as other:
        other.say(type="resume").until("error")
        assert other.messages[-1]["code"] == "not_found"


def test_who_was_cut_off_goes_on_behind_his_id_and_loses_nothing(chain: Chain) -> None:
    path = chat()
    with SocketClient(chain.url, path) as client:
        client.say(message="Hello", simulator=PACE).until("token", 10)
        client.drop()
    messages = list(client.messages)
    with SocketClient(chain.url, path) as again:
        again.say(type="resume", last_event_id=client.last_id).until("end")
        messages += again.messages[1:]
        again.messages.clear()
        again.say(type="resume", last_event_id=messages[-1]["id"]).until("end")
        assert len(again.messages) == 1
        again.say(type="resume").until("end")
        assert again.text == text_of(messages) == whole(chain, PACE)
    seqs = [int(message["id"].rpartition(".")[2]) for message in messages if "id" in message]
    assert seqs == list(range(1, 62))


def test_an_answer_is_stopped_and_the_socket_goes_on(chain: Chain) -> None:
    with SocketClient(chain.url, GENERATE) as client:
        client.say(prompt="Hello", simulator=PACE).until("token", 3)
        client.say(prompt="Hello").until("error")
        assert client.messages[-1]["code"] == "busy"
        client.say(type="cancel").until("error")
        assert (client.messages[-1]["code"], "id" in client.messages[-1]) == ("cancelled", True)
        for wrong, code in (
            ({"prompt": "x", "model": "none"}, "model_not_found"),
            ({"prompt": ""}, "invalid_request"),
            ({"prompt": "x", "temperature": 9}, "invalid_request"),
            ({"type": "resume", "last_event_id": "x"}, "invalid_cursor"),
            ({"type": "resume", "stream_id": "x" * 24}, "not_found"),
            ({"prompt": "\ud800"}, "invalid_request"),
        ):
            client.say(**wrong).until("error")
            assert client.messages[-1]["code"] == code, wrong
        client.say(prompt="Hello", simulator=FAST | {"fault": {"kind": "error", "at_token": 2}}).until("error")
        assert client.messages[-1]["code"] == "upstream_error"
        client.say(prompt="Hello", simulator=FAST).until("end")


def test_a_chat_through_a_rolling_restart_keeps_its_text(chain: Chain) -> None:
    until_replaced(chain, set())
    before = set(chain.worker_pids())

    def moved(messages: list[dict[str, Any]], reasons: list[str]) -> bool:
        return bool(reasons) and len(messages) > TOKENS_BEFORE + 30

    def talk(_: int) -> tuple[list[dict[str, Any]], list[str]]:
        return read_to_end(chain.url, chat(), moved, message="Hello", simulator=LONG)

    with SocketClient(chain.url, chat()) as idle, ThreadPoolExecutor(4) as pool:
        chats = [pool.submit(talk, number) for number in range(4)]
        time.sleep(1.0)
        os.kill(chain.gunicorn_pid(), signal.SIGHUP)
        for running in chats:
            messages, reasons = running.result(60)
            assert whole(chain, LONG).startswith(text_of(messages))
            indices = [message["index"] for message in messages if message["type"] == "token"]
            assert indices == list(range(1, len(indices) + 1))
            assert set(reasons) == {"drain"}
        assert idle.close_code() == 1012
        assert idle.messages[-1]["reason"] == "drain"
    until_replaced(chain, before)
    assert list(wrong_lines(chain.log)) == []


def test_a_chat_whose_worker_is_killed_keeps_its_text(chain: Chain) -> None:
    until_replaced(chain, set())
    path = chat()
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(read_to_end, chain.url, path, message="Hello", simulator=PACE)
        until(lambda: sum(all_active_streams(chain)) == 1, 10, "the stream has begun")
        pid = producing_worker(chain)
        os.kill(pid, signal.SIGKILL)
        messages, reasons = running.result(60)
    assert text_of(messages) == whole(chain, PACE)
    assert reasons
    with SocketClient(chain.url, path) as client:
        client.say(message="And now?", simulator=FAST).until("end")
        assert client.messages[-1]["usage"]["input_tokens"] == 1 + 60 + 2
    until_replaced(chain, {pid})


def test_who_takes_nothing_is_let_go_and_finds_out_why(chain: Chain) -> None:
    # Past NGINX, whose buffers would take megabytes.
    with RawSocket(sockets(chain)[0], GENERATE) as client:
        client.say(prompt="x", simulator=FAST | {"tokens": 32_000})
        chain.wait_for('"outcome":"slow_reader"', 20)
        while (told := client.message())["type"] != "reconnect":
            last = told
        assert told["reason"] == "slow_reader"
        assert client.close_code() == 1013
    with RawSocket(chain.url, GENERATE) as again:
        again.say(type="resume", last_event_id=last["id"])
        assert again.message()["type"] == "start"
        assert again.message()["index"] == last["index"] + 1


# Comes back behind its last id until it has heard the end.
CLIENT = """
    globalThis.heard = [];
    globalThis.codes = [];
    const [url, question] = arguments;
    const open = (first) => {
        const socket = new WebSocket(url);
        socket.onopen = () => socket.send(JSON.stringify(first));
        socket.onmessage = ({ data }) => heard.push(JSON.parse(data));
        socket.onclose = ({ code }) => {
            codes.push(code);
            const last_event_id = heard.findLast(({ id }) => id)?.id;
            if (last_event_id) setTimeout(open, 200, { type: "resume", last_event_id });
        };
    };
    open(question);
"""


def test_a_browser_chats_and_comes_back_with_its_id(browser: Browser, chain: Chain) -> None:
    until_replaced(chain, set())
    until(lambda: sum(all_active_streams(chain)) == 0, 20, "the other tests' streams are over")
    browser.open(f"{chain.url}/playground")  # whose policy lets it connect
    url = f"ws{chain.url.removeprefix('http')}{chat()}"
    browser.run(CLIENT, url, {"type": "message", "message": "Hello", "simulator": PACE | {"tokens": 120}})
    browser.wait_for("heard.length > 20")
    os.kill(producing_worker(chain), signal.SIGTERM)
    browser.wait_for("heard.some(({ type }) => type === 'end')")
    heard = list(browser.run("return heard"))
    assert text_of(heard) == whole(chain, PACE | {"tokens": 120})
    assert "drain" in [message.get("reason") for message in heard]
    assert browser.run("return codes[0]") == 1012
    # What a page is refused, it sees as an end without a reason.
    browser.open("data:text/html,x")
    browser.run(CLIENT, url, {"type": "ping"})
    assert browser.wait_for("codes[0]") == 1006
