#!/usr/bin/env bash
# A `dvc repro` that has nothing to do: this repository against a one-stage repository made beside it, in turn, five times.
#   bash benchmarks/noop.sh
set -euo pipefail
cd "$(dirname "$0")/.."
here=$PWD
other=$(mktemp -d)
trap 'rm -rf "$other"' EXIT
(cd "$other" && git init -q && dvc init -q && dvc config core.analytics false && printf 'stages:\n  one:\n    cmd: echo 1 > out\n    outs: [out]\n' > dvc.yaml && dvc repro -q)
seconds() { local start; start=$(date +%s.%N); (cd "$1" && dvc repro > /dev/null); echo "$(date +%s.%N) - $start" | bc; }
dvc repro > /dev/null
for _ in 1 2 3 4 5; do
  a=$(seconds "$here"); b=$(seconds "$other")
  echo "this repository $a s, one stage $b s, ratio $(echo "scale=2; $a / $b" | bc)"
done
