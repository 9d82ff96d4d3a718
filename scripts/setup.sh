#!/bin/sh
# Makes .venv where it is missing or broken, and installs one lock file into it.
# Usage: scripts/setup.sh <lock> <stamp>; the stamp is touched when the lock is installed.
set -eu
cd "$(dirname "$0")/.."
lock=$1
stamp=$2

fits() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null
}

find_python() {
    # 3.11 first: it is what the tests run on. A name may be a shim that leads nowhere, so each is asked.
    for name in python3.11 python3.12 python3.13 python3.14 python3; do
        if fits "$name"; then
            echo "$name"
            return
        fi
    done
    echo "setup: Python 3.11 or newer is missing (Debian: apt-get install python3 python3-venv)" >&2
    return 1
}

if ! fits .venv/bin/python || ! .venv/bin/python -c 'import pip' 2>/dev/null; then
    python=$(find_python)
    echo "setup: making .venv with $("$python" --version)"
    if ! "$python" -m venv --clear .venv; then
        echo "setup: $python cannot make a virtual environment (Debian: apt-get install python3-venv)" >&2
        exit 1
    fi
fi

echo "setup: installing $lock (the first time takes about half a minute)"
# Hashes are checked by pip, as the lock has them. --no-deps: the lock is complete, there is nothing to resolve.
.venv/bin/python -m pip install --quiet --disable-pip-version-check --no-input --no-deps --require-hashes -r "$lock" ||
    { echo "setup: pip could not install $lock" >&2; exit 1; }
touch "$stamp"
