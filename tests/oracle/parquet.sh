#!/usr/bin/env bash
# tests/oracle/parquet.sh PMETAL SCRATCH: Parquet files that `pmetal dataset convert` writes, read by hyparquet and by
# DuckDB (npm, installed into SCRATCH): the rows must be those of the JSON Lines they were made from. The other way,
# their files before our reader, is a unit test (parquet_test.cc).
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")/parquet" && pwd)
data=$here/../../data/parquet
pmetal=$1 scratch=$2
mkdir -p "$scratch"
cp "$here"/package.json "$here"/check_ours.mjs "$scratch"/
[ -d "$scratch/node_modules/hyparquet" ] || (cd "$scratch" && npm install --ignore-scripts --no-audit --no-fund >&2)
for name in flat chats; do
  "$pmetal" dataset convert -i "$data/$name.jsonl" -o "$scratch/$name.parquet" >&2
  (cd "$scratch" && node check_ours.mjs "$data/$name.jsonl" "$name.parquet")
done
