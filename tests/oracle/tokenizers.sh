#!/usr/bin/env bash
# Compares our tokenizers with the official library (npm `tokenizers`) on random strings: components over every code
# point, tokenizers of random parts, and the ones that are stored here.
#   tests/oracle/tokenizers.sh [BUILD_DIR] [STRINGS]     default: build/release 100000
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${1:-$root/build/release}
strings=${2:-100000}
oracle=$build/oracle/tokenizers
mkdir -p "$oracle"
cp "$root"/tools/oracle/tokenizers/*.{json,mjs} "$oracle"/
[ -d "$oracle/node_modules/tokenizers" ] || (cd "$oracle" && npm ci --ignore-scripts --no-audit --no-fund >&2)
files=("$root"/tests/data/tokenizers/*/tokenizer.json)
if [ -d "$root/../shared/fixtures/tokenizers" ]; then
  files=("$root"/../shared/fixtures/tokenizers/*/tokenizer.json "$root"/tests/data/tokenizers/tiny/tokenizer.json)
fi
node "$oracle/compare.mjs" "$build/tokenizer_lines" "$strings" components random:1-400 "${files[@]}"
