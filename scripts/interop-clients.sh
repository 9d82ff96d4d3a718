#!/bin/sh
# Makes the environments of the third-party clients in tests/interop: their pins are their own, and none of the product's.
set -eu
cd "$(dirname "$0")/.."
python=.tools/interop/bin/python
lock=tests/interop/requirements.lock

if [ ! -e .tools/interop/installed ] || [ "$lock" -nt .tools/interop/installed ]; then
    .venv/bin/python -m venv --clear .tools/interop
    "$python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$lock"
    touch .tools/interop/installed
fi
if [ ! -d tests/interop/node_modules ] || [ tests/interop/package-lock.json -nt tests/interop/node_modules ]; then
    if ! command -v npm >/dev/null; then
        echo "interop: npm is not installed (Debian: apt-get install npm)" >&2
        exit 1
    fi
    (cd tests/interop && npm ci --no-progress --loglevel=error)
    touch tests/interop/node_modules
fi
