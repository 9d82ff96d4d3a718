#!/bin/sh
# Writes the locks: two from pyproject.toml, and that of the load tests' image. Versions that are locked stay unless they no longer fit, or --upgrade is given.
set -eu
cd "$(dirname "$0")/.."

# In an environment of its own: the resolver is no dependency of ours.
uv_version=0.13.8
if [ ! -x .tools/uv/bin/uv ] || [ "$(.tools/uv/bin/uv --version | cut -d ' ' -f 2)" != "$uv_version" ]; then
    .venv/bin/python -m venv --clear .tools/uv
    .tools/uv/bin/python -m pip install --quiet --disable-pip-version-check "uv==$uv_version"
fi

compile() {
    # --universal: one lock for every platform. No index address: whoever installs chooses the index.
    UV_CUSTOM_COMPILE_COMMAND="make lock" .tools/uv/bin/uv pip compile --quiet --universal --generate-hashes \
        --no-emit-index-url --no-annotate --python-version 3.11 "$@"
}

compile pyproject.toml --extra run --output-file requirements.lock "$@"
compile pyproject.toml --extra dev --output-file requirements-dev.lock "$@"
compile loadtests/requirements.in --constraint requirements-dev.lock --output-file loadtests/requirements.lock "$@"
