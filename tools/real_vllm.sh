#!/bin/sh
# Runs a command with a real vLLM for CPUs and a tiny model at hand: `tools/real_vllm.sh COMMAND ARGUMENT...`
# OPSBOARD_REAL_VLLM_PYTHON and OPSBOARD_REAL_MODEL tell the command where they are; without a command, they are printed.
#
# The first run makes them (about 2 minutes, 3.4 GB) in the user's cache directory, under the hash of what they are made
# from, so that all checkouts share them. A half-made one is never used.
set -eu
tools=$(cd "$(dirname "$0")" && pwd)
requirements=$tools/../requirements
cache=${XDG_CACHE_HOME:-$HOME/.cache}/opsboard
log=$cache/real-vllm.log

say() { echo "real-vllm: $*" >&2; }
fail() {
    say "$*"
    exit 1
}
hash_of() { cat "$@" | sha256sum | cut -c1-12; }

# settle HALF FINAL: when two make the same thing at once, the second keeps the first one's.
settle() { mv -T "$1" "$2" 2>/dev/null || [ -d "$2" ] || fail "cannot move $1 to $2"; }

make_environment() {
    python=${OPSBOARD_PYTHON311:-python3.11}
    "$python" -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null ||
        fail "needs Python 3.11 with venv: apt install python3.11 python3.11-venv (or pyenv install 3.11), or set OPSBOARD_PYTHON311"
    say "making $environment (2 minutes, 3.4 GB; log: $log)"
    half=$scratch/environment
    # shellcheck disable=SC2086 # OPSBOARD_TORCH_PIP_ARGS holds several arguments
    { "$python" -m venv "$half" && "$half/bin/python" -m pip install --no-deps ${OPSBOARD_TORCH_PIP_ARGS:-} \
        -r "$requirements/real-vllm-torch.txt"; } >"$log" 2>&1 ||
        fail "no CPU build of torch (log: $log): set OPSBOARD_TORCH_PIP_ARGS='--index-url URL', the URL of PyTorch's CPU wheels"
    "$half/bin/python" -m pip install --no-deps --require-hashes -r "$requirements/real-vllm.txt" >>"$log" 2>&1 ||
        fail "vLLM cannot be installed (log: $log)"
    settle "$half" "$environment"
}

make_model() {
    say "making $model"
    "$environment/bin/python" "$tools/tiny_model.py" "$scratch/model" >>"$log" 2>&1 ||
        fail "the tiny model cannot be made (log: $log)"
    settle "$scratch/model" "$model"
}

environment=$cache/real-vllm-$(hash_of "$requirements/real-vllm.txt" "$requirements/real-vllm-torch.txt")
model=$cache/tiny-model-$(hash_of "$requirements/real-vllm.txt" "$tools/tiny_model.py")
if [ ! -d "$environment" ] || [ ! -d "$model" ]; then
    mkdir -p "$cache"
    scratch=$(mktemp -d "$cache/half-made.XXXXXX")
    trap 'rm -rf "$scratch"' EXIT
    trap 'exit 1' HUP INT TERM
    [ -d "$environment" ] || make_environment
    [ -d "$model" ] || make_model
    rm -rf "$scratch"
    trap - EXIT HUP INT TERM
fi

export OPSBOARD_REAL_VLLM_PYTHON="$environment/bin/python" OPSBOARD_REAL_MODEL="$model"
if [ $# -gt 0 ]; then exec "$@"; fi
echo "OPSBOARD_REAL_VLLM_PYTHON=$OPSBOARD_REAL_VLLM_PYTHON"
echo "OPSBOARD_REAL_MODEL=$OPSBOARD_REAL_MODEL"
