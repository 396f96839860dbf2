#!/usr/bin/env bash
# Our encoder beside the official core (npm tokenizers), one thread each, in turns on the same text.
#   bench/tokenizers/run.sh TOKENIZER.json TEXT [TURNS]
set -euo pipefail
[ $# -ge 2 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
tokenizer=$(realpath "$1") text=$(realpath "$2") turns=${3:-3}
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
oracle=$root/build/release/oracle/tokenizers
mkdir -p "$oracle"
cp "$root"/tools/oracle/tokenizers/*.json "$root"/bench/tokenizers/peer.mjs "$oracle"/
[ -d "$oracle/node_modules/tokenizers" ] || (cd "$oracle" && npm ci --ignore-scripts --no-audit --no-fund >&2)
for ((i = 0; i < turns; i++)); do
  taskset -c 0 "$root/build/release/bench/bench_tokenizers" "$tokenizer" "$text" 3
  RAYON_NUM_THREADS=1 TOKENIZERS_PARALLELISM=false node "$oracle/peer.mjs" "$tokenizer" "$text" 3
done
