#!/bin/sh
# Makes, once, an environment with a real vLLM for CPUs (about 2 minutes, 3 GB) and a tiny model, outside the checkout, and
# prints its directory. The directory's name holds the hash of what it is made from; a half-made one is never used.
set -eu
cd "$(dirname "$0")/.."

say() { echo "real-vllm: $*" >&2; }
fail() {
    say "$*"
    exit 1
}

recipe=$(cat requirements/real-vllm.txt requirements/real-vllm-torch.txt tools/tiny_model.py | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-$HOME/.cache}/opsboard
home=$cache/real-vllm-$recipe
if [ ! -x "$home/bin/python" ]; then
    python=${OPSBOARD_PYTHON311:-python3.11}
    "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
        fail "needs Python 3.11 with venv: apt install python3.11 python3.11-venv (or: pyenv install 3.11), or set OPSBOARD_PYTHON311"
    mkdir -p "$cache"
    half=$(mktemp -d "$cache/half-made.XXXXXX")
    trap 'rm -rf "$half"' EXIT
    trap 'exit 1' HUP INT TERM
    say "making $home (3 GB; log: $cache/real-vllm.log)"
    {
        "$python" -m venv "$half" &&
            # shellcheck disable=SC2086 # the variable holds several arguments
            "$half/bin/python" -m pip install --no-deps ${OPSBOARD_TORCH_PIP_ARGS:-} -r requirements/real-vllm-torch.txt
    } >"$cache/real-vllm.log" 2>&1 ||
        fail "no CPU build of torch found (see the log): set OPSBOARD_TORCH_PIP_ARGS='--index-url URL' to PyTorch's CPU wheel index"
    "$half/bin/python" -m pip install --no-deps --require-hashes -r requirements/real-vllm.txt >>"$cache/real-vllm.log" 2>&1 ||
        fail "vLLM could not be installed (see the log)"
    "$half/bin/python" tools/tiny_model.py "$half/tiny-model" >>"$cache/real-vllm.log" 2>&1 ||
        fail "the tiny model could not be made (see the log)"
    # Whoever comes second, when two make it at once, keeps the first one's.
    mv -T "$half" "$home" 2>/dev/null || [ -x "$home/bin/python" ] || fail "cannot move $half to $home"
fi
echo "$home"
