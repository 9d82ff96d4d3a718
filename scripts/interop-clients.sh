#!/bin/sh
# Makes the environments of the third-party clients in tests/interop: their pins are their own, and none of the product's.
set -eu
cd "$(dirname "$0")/.."

environment() {
    if [ ! -e ".tools/$1/installed" ] || [ "$2" -nt ".tools/$1/installed" ]; then
        .venv/bin/python -m venv --clear ".tools/$1"
        ".tools/$1/bin/python" -m pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r "$2"
        touch ".tools/$1/installed"
    fi
}
environment interop tests/interop/requirements.lock
environment checkov tests/interop/checkov.lock
if [ ! -d tests/interop/node_modules ] || [ tests/interop/package-lock.json -nt tests/interop/node_modules ]; then
    if ! command -v npm >/dev/null; then
        echo "interop: npm is not installed (Debian: apt-get install npm)" >&2
        exit 1
    fi
    (cd tests/interop && npm ci --no-progress --loglevel=error)
    touch tests/interop/node_modules
fi
