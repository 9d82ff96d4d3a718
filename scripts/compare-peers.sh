#!/bin/sh
# Makes the environment of the gateway that `make compare` compares with: its pins are its own, and none of the product's.
set -eu
cd "$(dirname "$0")/.."
lock=loadtests/compare/litellm.lock

if [ "${1:-}" = --lock ]; then # what scripts/lock.sh installs; no index address, as there
    UV_CUSTOM_COMPILE_COMMAND="scripts/compare-peers.sh --lock" exec .tools/uv/bin/uv pip compile --quiet \
        --generate-hashes --no-emit-index-url --no-annotate --python-version 3.11 "${lock%.lock}.in" --output-file "$lock"
fi
if [ ! -e .tools/litellm/installed ] || [ "$lock" -nt .tools/litellm/installed ]; then
    echo "compare: installing LiteLLM into .tools/litellm (the first time takes about two minutes)"
    .venv/bin/python -m venv --clear .tools/litellm
    .tools/litellm/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock"
    touch .tools/litellm/installed
fi
