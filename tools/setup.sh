#!/bin/sh
# Makes .venv and installs the locked requirements and this checkout: `tools/setup.sh run` or `tools/setup.sh dev`.
# Does nothing when the lock has not changed since. Uses uv when it is on PATH and works, else venv and pip.
# PYTHON names the interpreter to use; by default the first one found that is new enough and has venv.
set -eu
cd "$(dirname "$0")/.."

set_name=${1:?usage: tools/setup.sh run|dev}
lock=requirements/$set_name.txt
log=.venv/setup.log

say() { echo "set-up: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

# A change of pyproject.toml may change the console script or the packages.
fingerprint() { cat "requirements/$1.txt" pyproject.toml | cksum; }
current() { [ -x .venv/bin/python ] && [ "$(cat ".venv/.installed-$1" 2>/dev/null)" = "$(fingerprint "$1")" ]; }

new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has_venv() { "$1" -c 'import ensurepip, venv' 2>/dev/null; }

find_python() { # sets python, or ends with the one line that helps
    without_venv=
    for python in ${PYTHON:-python3 python3.14 python3.13 python3.12 python3.11}; do
        new_enough "$python" || continue
        if has_venv "$python"; then return; fi
        without_venv=$python
    done
    [ -z "$without_venv" ] ||
        fail "$without_venv has no venv module: apt install python3-venv (Debian, Ubuntu), then run make again"
    fail "Python >= 3.11 not found: apt install python3 python3-venv (or dnf install python3.11, or install uv), or set PYTHON=/path/to/python"
}

with_uv() {
    { [ -x .venv/bin/python ] || uv venv --quiet --allow-existing --python "${PYTHON:->=3.11}" .venv; } &&
        uv pip install --quiet --python .venv/bin/python --require-hashes -r "$lock" &&
        uv pip install --quiet --python .venv/bin/python --no-deps --no-build-isolation --editable .
}

with_pip() {
    [ -x .venv/bin/python ] && .venv/bin/python -m pip --version >/dev/null 2>&1 || "$python" -m venv --clear .venv
    {
        .venv/bin/python -m pip install --disable-pip-version-check --require-hashes -r "$lock" &&
            .venv/bin/python -m pip install --disable-pip-version-check --no-deps --no-build-isolation --editable .
    } >"$log" 2>&1
}

! current "$set_name" || exit 0
[ "$set_name" != run ] || ! current dev || exit 0

if [ -x .venv/bin/python ] && ! new_enough .venv/bin/python; then rm -rf .venv; fi
say "installing $lock into .venv"
if command -v uv >/dev/null 2>&1 && with_uv; then
    :
else
    find_python
    with_pip || {
        tail -n 15 "$log" >&2
        fail "pip could not install $lock (all of it: $log). Is a package index reachable from here?"
    }
fi
fingerprint "$set_name" >".venv/.installed-$set_name"
