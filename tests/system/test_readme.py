"""What README.md tells people to type, typed by a test, against the real chain; and that it does what the text says.

A block of commands under `<!-- runnable: NAME -->` is run as it stands, except that the chain has a port and a state
folder of its own.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.chain import Chain
from tests.support.launched import HOME
from tests.support.upstream import ScriptedUpstream

README = (HOME / "README.md").read_text(encoding="utf-8")
BLOCKS = dict(re.findall(r"<!-- runnable: (\w+) -->\n```sh\n(.*?)```", README, re.DOTALL))
BLOCK_SECONDS_MAX = 60.0
PROMPT = "Hello"


@pytest.fixture(autouse=True)
def programs() -> None:
    for program in ("curl", "pkill"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


@pytest.fixture(scope="module")
def chain() -> Iterator[Chain]:
    with Chain(workers=2) as running:
        yield running


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder that looks like the repository to the commands, and that they may write to."""
    (tmp_path / ".venv").symlink_to(sys.prefix)
    return tmp_path


def start(name: str, chain: Chain, place: Path) -> subprocess.Popen[str]:
    commands = BLOCKS[name].replace("127.0.0.1:8080", f"127.0.0.1:{chain.port}")
    commands = commands.replace("$PWD/var", str(chain.state_dir))
    pipe = subprocess.PIPE
    return subprocess.Popen(
        ["bash", "-c", commands], cwd=place, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    )


def run(name: str, chain: Chain, place: Path) -> tuple[str, str]:
    """What the block wrote to stdout and stderr."""
    process = start(name, chain, place)
    try:
        return process.communicate(timeout=BLOCK_SECONDS_MAX)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()


def answer(chain: Chain, **body: Any) -> str:
    """The whole answer to the prompt, as one document."""
    body = {"prompt": PROMPT, "simulator": {"tokens_per_second": 0, "first_token_ms": 0}, **body}
    request = urllib.request.Request(
        f"{chain.url}/api/v1/generate", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=30) as response:
        text: str = json.load(response)["response"]
    return text


def numbers(output: str) -> list[int]:
    return [int(number) for number in re.findall(r"^id: [\w-]{22,40}\.0\.(\d+)$", output, re.MULTILINE)]


def text_of(output: str) -> str:
    return "".join(json.loads(data)["token"] for data in re.findall(r'^data: (\{"type":.*)$', output, re.MULTILINE))


def test_every_runnable_block_is_run_here() -> None:
    assert set(BLOCKS) == {"stream", "resume", "story", "sdk"}
    assert README.count("```sh\n") == len(BLOCKS) + 1  # `make run` and `make test`, which test_run.py and CI run


def test_a_stream_that_was_left_half_way_goes_on_behind_its_last_id(chain: Chain, place: Path) -> None:
    process, seen = start("stream", chain, place), place / "stream.txt"
    deadline = time.monotonic() + 20
    while not seen.exists() or len(numbers(seen.read_text())) < 5:
        assert time.monotonic() < deadline, process.communicate()
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=10)
    before = seen.read_text()
    assert "event: done" not in before
    assert before.endswith("\n\n"), "cut within an event, whose id must not count"
    after, _ = run("resume", chain, place)
    assert numbers(before) + numbers(after) == list(range(1, len(numbers(before)) + len(numbers(after)) + 1))
    assert text_of(before) + text_of(after) == answer(chain)
    assert after.count("event: done\n") == 1


def test_the_story_of_the_cut_connection_is_true(chain: Chain, place: Path) -> None:
    workers = chain.worker_pids()
    output, errors = run("story", chain, place)
    assert not set(workers) & set(chain.worker_pids())
    cut = (place / "cut.txt").read_text()
    assert "event: done" not in cut
    assert errors.splitlines() == ["curl: (18) transfer closed with outstanding read data remaining"]
    shown = "".join(line + "\n" for line in cut.splitlines()[-4:])
    assert output.startswith(shown)
    rest = output.removeprefix(shown)
    assert numbers(cut) + numbers(rest) == list(range(1, 42))
    assert text_of(cut) + text_of(rest) == answer(chain, simulator={"tokens": 40, "tokens_per_second": 0})
    assert rest.count("event: done\n") == 1


def test_the_sdk_needs_another_base_url_and_no_more(chain: Chain, place: Path) -> None:
    output, errors = run("sdk", chain, place)
    assert output.strip(), errors
    assert output == answer(chain)


def test_the_models_file_asks_its_upstreams_in_turn_with_the_key(tmp_path: Path) -> None:
    config = tmp_path / "models.yaml"
    with ScriptedUpstream() as upstream:
        upstream.script("gpt-x", status=500)
        text = README.split("```yaml\n")[1].split("```")[0]
        config.write_text(text.replace("http://127.0.0.1:9100/v1", upstream.base_url))
        with Chain({"SLUICE_CONFIG": str(config), "ORIGIN_KEY": "secret-of-the-test"}, workers=1) as chain:
            simulated = answer(chain, model="gpt-x", simulator=None)
            script = upstream.script("gpt-x")
            assert answer(chain, model="gpt-x", simulator=None).strip() == script.text.strip() != simulated.strip()
        requests = upstream.requests("gpt-x")
        assert len(requests) == 2
        assert {request.headers["authorization"] for request in requests} == {"Bearer secret-of-the-test"}


def bash_block(mark: str) -> list[str]:
    """The lines of the block that has `mark`; one of them is `make run`, which the tests do in their own way."""
    blocks: list[str] = re.findall(r"```bash\n(.*?)```", README, re.DOTALL)
    assert len(blocks) == 2
    (block,) = [block for block in blocks if mark in block]
    return block.replace("\\\n", "").splitlines()


def typed(command: str, chain: Chain | None = None, **env: str) -> str:
    """What the command wrote to stdout."""
    command = command.replace("127.0.0.1:8080", f"127.0.0.1:{chain.port}" if chain else "")
    command = command.replace(".venv/bin/python", sys.executable)
    done = subprocess.run(
        ["bash", "-c", command],
        cwd=HOME,
        capture_output=True,
        text=True,
        timeout=BLOCK_SECONDS_MAX,
        env=os.environ | env,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_example_agent_answers_as_the_readme_asks_it() -> None:
    started, asked = bash_block("examples/agent")
    config = re.search(r"SLUICE_CONFIG=(\S+) make run", started)
    assert config is not None
    with Chain({"SLUICE_CONFIG": str(HOME / config[1])}, workers=1) as chain:
        output = typed(asked, chain)
    assert "A weir is a low dam" in text_of(output)
    assert output.count("event: done\n") == 1


def test_a_key_is_made_and_used_as_the_readme_says(tmp_path: Path) -> None:
    made, started, asked = bash_block("deploy.credentials key")
    said = typed(made)
    (line,) = re.findall(r"^ +- \{hash: .*\}$", said, re.MULTILINE)
    (key,) = re.findall(r"^ +(sk-sluice-\S+)$", said, re.MULTILINE)
    assert started == "SLUICE_API_KEYS_FILE=keys.yaml make run"
    keys = tmp_path / "keys.yaml"
    keys.write_text(f"keys:\n{line}\n")
    with Chain({"SLUICE_API_KEYS_FILE": str(keys)}, workers=1) as chain:
        assert "event: done\n" in typed(asked, chain, KEY=key)
        assert '"unauthorized"' in typed(asked, chain, KEY="sk-sluice-another")
