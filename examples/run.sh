#!/usr/bin/env bash
# Runs all examples against $SLUICE_URL (http://127.0.0.1:8080): one line each. Exit code 1 when one failed.
set -uo pipefail
cd "$(dirname "$0")" || exit 1

export SLUICE_URL=${SLUICE_URL:-http://127.0.0.1:8080}
python=${PYTHON:-python3}
[ -x ../.venv/bin/python ] && python=${PYTHON:-../.venv/bin/python}
seconds_max=120
failed=0

try() { # NAME COMMAND...: what a failed example has said is shown below its line
    local name=$1 output
    shift
    if ! command -v "$1" >/dev/null; then
        echo "$name failed: $1 is not installed"
        failed=1
    elif output=$(timeout "$seconds_max" "$@" 2>&1); then
        echo "$name ok"
    else
        echo "$name failed"
        printf '%s\n' "$output" | tail -n 5
        failed=1
    fi
}

try python/stream.py "$python" python/stream.py
try python/openai_sdk.py "$python" python/openai_sdk.py
try python/anthropic_sdk.py "$python" python/anthropic_sdk.py
try javascript/stream.mjs node javascript/stream.mjs
try javascript/eventsource.html bash javascript/eventsource.sh
try "curl/stream.sh native" bash curl/stream.sh native "Why is the sky blue?"
try "curl/stream.sh openai" bash curl/stream.sh openai "Why is the sky blue?"
exit $failed
