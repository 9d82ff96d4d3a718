#!/usr/bin/env bash
# Streams with curl, from the native route and from OpenAI's.
#
#     SLUICE_URL=http://127.0.0.1:8080 ./stream.sh native "Why is the sky blue?"
#     SLUICE_URL=http://127.0.0.1:8080 ./stream.sh openai "Why is the sky blue?"
#
# Without words, both with a prompt of its own. Exit code 1 for anything but a complete answer: the server refuses (its JSON
# says why), the stream reports an error, or it stops without saying how it ended. Needs curl 7.76 or newer.
set -euo pipefail

url=${SLUICE_URL:-http://127.0.0.1:8080}
model=${SLUICE_MODEL:-simulator}

# curl -N prints what comes as it comes; without it, output waits for a full buffer. Sluice sends a heartbeat every 15 s,
# so a transfer of less than a byte a second for 30 s is a dead connection.
post() { # PATH BODY
    curl -N --silent --show-error --fail-with-body --speed-limit 1 --speed-time 30 \
        -H 'Content-Type: application/json' -H 'Accept: text/event-stream' --data-binary "$2" "${url%/}$1"
}

json_string() { # TEXT: without a JSON tool, enough for a prompt typed on one line
    local text=${1//\\/\\\\}
    printf '"%s"' "${text//\"/\\\"}"
}

# Prints its input line by line, and fails unless it ends as a complete stream does.
expect_end() { # LAST_LINE_OF_SUCCESS START_OF_ERROR
    local line outcome="stopped without saying how it ended"
    while IFS= read -r line || [ -n "$line" ]; do
        printf '%s\n' "$line"
        case ${line%$'\r'} in
            "$1") outcome=complete ;;
            "$2"*) outcome="ended in an error" ;;
        esac
    done
    if [ "$outcome" != complete ]; then
        echo "error: the stream $outcome" >&2
        return 1
    fi
}

# Expect an `event: token` with `data: {"type":"content","token":"…","index":1}` for each token, and at the end
# `event: done` with the usage, or `event: error`. A line that starts with a colon is a heartbeat.
native() { # PROMPT
    post /api/v1/generate "{\"prompt\": $(json_string "$1"), \"stream\": true}" | expect_end 'event: done' 'event: error'
}

# Expect `data: {… "delta":{"content":"…"} …}` for each token, and at the end `data: [DONE]`, or `data: {"error": …}`.
openai() { # PROMPT
    local messages="[{\"role\": \"user\", \"content\": $(json_string "$1")}]"
    post /v1/chat/completions "{\"model\": \"$model\", \"stream\": true, \"messages\": $messages}" |
        expect_end 'data: [DONE]' 'data: {"error"'
}

case ${1:-both} in
    native | openai) "$1" "${*:2}" ;;
    both)
        native "Why is the sky blue?"
        openai "Why is the sky blue?"
        ;;
    *)
        echo "usage: $0 [native|openai PROMPT]" >&2
        exit 2
        ;;
esac
