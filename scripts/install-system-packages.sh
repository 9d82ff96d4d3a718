#!/bin/sh
# Installs the programs that running and testing need, on Debian and as root; elsewhere says what is missing.
# Usage: scripts/install-system-packages.sh [package ...]; without arguments, all that the tests use.
# Never fails: who needs a missing program says so itself.
set -u

# Package and the program it brings; a program that is there is never replaced.
packages='nginx-light:nginx redis-server:redis-server chromium:chromium chromium-driver:chromedriver nodejs:node
curl:curl procps:ps iproute2:ss build-essential:gcc systemd:systemd-analyze slowhttptest:slowhttptest gettext-base:envsubst
prometheus:prometheus prometheus-alertmanager:prometheus-alertmanager buildah:buildah mmdebstrap:mmdebstrap'

PATH=$PATH:/usr/local/sbin:/usr/sbin:/sbin
missing=
for entry in $packages; do
    package=${entry%%:*}
    program=${entry#*:}
    case " ${*:-$package} " in *" $package "*) ;; *) continue ;; esac
    command -v "$program" >/dev/null 2>&1 || missing="$missing $package"
done
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
    echo "missing:$missing (Debian: sudo apt-get install$missing); tests that need them are skipped" >&2
    exit 0
fi

# Debian starts a service when it is installed, and NGINX's would take port 80; this asks it not to.
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    printf '#!/bin/sh\nexit 101\n' >"$policy"
    chmod 755 "$policy"
fi

install() {
    # shellcheck disable=SC2086 # a list
    DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends $missing </dev/null >/dev/null
}
echo "installing:$missing"
# The lists of a fresh machine are empty or old: fetched only when they are needed.
install 2>/dev/null || { apt-get update --quiet=2 </dev/null && install; } ||
    echo "could not install:$missing; tests that need them are skipped" >&2
exit 0
