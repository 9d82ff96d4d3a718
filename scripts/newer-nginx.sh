#!/bin/sh
# Puts a newer NGINX beside Debian's, which the tests try the configuration on too: .tools/nginx-newer/nginx.
# From Debian's unstable suite, with the libraries that it needs, unpacked and not installed: nothing else sees it.
# Never fails: tests that need it say that they are skipped.
set -u

cd "$(dirname "$0")/.." || exit 0
target=$PWD/.tools/nginx-newer
suite=sid
[ -x "$target/nginx" ] && "$target/nginx" -v 2>/dev/null && exit 0
command -v apt-get >/dev/null 2>&1 || { echo "no newer NGINX: not a Debian" >&2; exit 0; }

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
chmod 755 "$work" # apt fetches as another user
mkdir -p "$work/lists/partial" "$work/archives/partial" "$work/parts" "$work/preferences" "$work/root"
: >"$work/status" # nothing is installed, so that every library comes along

# From where this machine has its own packages.
uri=$(apt-get indextargets --format '$(REPO_URI) $(ORIGIN)' 'Created-By: Packages' 2>/dev/null |
    awk '$2 == "Debian" && $1 ~ /\/debian\/?$/ { print $1; exit }')
[ -n "$uri" ] || uri=$(apt-get indextargets --format '$(REPO_URI)' 2>/dev/null | grep -m 1 '/debian/*$')
[ -n "$uri" ] || { echo "no newer NGINX: this machine names no archive of Debian's" >&2; exit 0; }
echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $uri $suite main" >"$work/list"

apt() {
    apt-get --quiet=2 --yes --no-install-recommends -o Dir::Etc::sourcelist="$work/list" \
        -o Dir::Etc::sourceparts="$work/parts" -o Dir::Etc::preferencesparts="$work/preferences" \
        -o Dir::State::lists="$work/lists" -o Dir::State::status="$work/status" \
        -o Dir::Cache::archives="$work/archives" -o Dir::Cache::pkgcache= -o Dir::Cache::srcpkgcache= \
        -o Debug::NoLocking=1 -o APT::Sandbox::User=root "$@" </dev/null >/dev/null
}
if ! { apt update && apt --download-only install nginx; }; then
    echo "no newer NGINX: could not fetch it" >&2
    exit 0
fi
for package in "$work"/archives/*.deb; do
    case "$package" in
    */nginx_* | */lib*) dpkg -x "$package" "$work/root" ;;
    esac
done

# By its own loader and libraries; this machine's are older than it needs.
loader=$(cd "$work/root" && find . -name 'ld-linux*.so.*' | head -n 1)
rm -rf "$target"
mkdir -p "$target"
mv "$work/root" "$target/root"
libraries=$(find "$target/root" -name 'libcrypto.so.*' -exec dirname {} \; | head -n 1)
cat >"$target/nginx" <<SCRIPT
#!/bin/sh
exec "$target/root/$loader" --library-path "$libraries" "$target/root/usr/sbin/nginx" "\$@"
SCRIPT
chmod +x "$target/nginx"
"$target/nginx" -v || { rm -rf "$target"; echo "no newer NGINX: it does not run here" >&2; }
exit 0
