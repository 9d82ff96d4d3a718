#!/usr/bin/env bash
# Opens eventsource.html in a Chromium without a window, and prints the text that it shows once the stream has ended.
#
#     SLUICE_URL=http://127.0.0.1:8080 ./eventsource.sh "Why is the sky blue?"
#
# Exit code 1 for anything but a complete answer. Needs Node 18 and Chromium or Chrome.
set -euo pipefail
cd "$(dirname "$0")"

seconds_max=90
scratch=$(mktemp -d)
server=
cleanup() {
    [ -z "$server" ] || kill "$server" 2>/dev/null || true
    rm -rf "$scratch"
}
trap cleanup EXIT

browser=$(command -v chromium || command -v chromium-browser || command -v google-chrome) ||
    { echo "error: there is no Chromium or Chrome" >&2 && exit 1; }

PAGE_PORT=0 node serve.mjs >"$scratch/address" &
server=$!
for _ in {1..100}; do
    [ -s "$scratch/address" ] && break
    sleep 0.1
done

prompt=$(node -p 'encodeURIComponent(process.argv[1])' "${*:-Why is the sky blue?}")
# A profile of its own, so that it never joins a browser that is open. With virtual time, the page is printed once its
# requests have ended, and timers do not hold it up. Chromium refuses to run as root with its sandbox.
options=(--headless=new --disable-gpu --user-data-dir="$scratch/profile" --virtual-time-budget=60000)
[ "$(id -u)" -ne 0 ] || options+=(--no-sandbox)
page=$(timeout "$seconds_max" "$browser" "${options[@]}" --dump-dom "$(cat "$scratch/address")?prompt=$prompt" 2>/dev/null)

text_of() { # ID: the text of the page's element
    node -e '
        const html = process.argv[2].match(new RegExp(`id="${process.argv[1]}"[^>]*>([^<]*)<`))?.[1] ?? "";
        const characters = { lt: "<", gt: ">", amp: "&", nbsp: "\u00a0" };
        console.log(html.replace(/&(lt|gt|amp|nbsp);/g, (_, name) => characters[name]));
    ' "$1" "$page"
}

text_of text
case $(text_of outcome) in
    complete*) ;;
    *)
        text_of outcome >&2
        exit 1
        ;;
esac
