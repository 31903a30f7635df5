#!/bin/sh
# Resolves the hash-locked requirement files anew, for every Python from 3.11 on and every Linux, and without naming any index.
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-.venv/bin/uv}

lock() { # lock OUTPUT INPUT...
    out=$1
    shift
    "$uv" pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
        --no-emit-index-url --no-emit-find-links --output-file "requirements/$out" "$@" >/dev/null
}

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
# The build backend is locked too: set-up installs the checkout without build isolation, whose downloads no lock covers.
printf 'hatchling\neditables\n' >"$scratch/build.in"
# torch and what only images and sound need are left out of the real vLLM (requirements/real-vllm-torch.txt).
for name in torch torchaudio torchcodec torchvision; do
    echo "$name ; sys_platform == 'none'"
done >"$scratch/without-torch.txt"

lock run.txt pyproject.toml "$scratch/build.in"
lock dev.txt pyproject.toml "$scratch/build.in" --group dev --constraint requirements/run.txt
lock real-vllm.txt requirements/real-vllm.in --override "$scratch/without-torch.txt"
