#!/usr/bin/env bash
# fuzz/run.sh NAME SECONDS: builds fuzz/NAME.cc with clang, ASan and UBSan and runs it from the stored corpus.
# New inputs stay in build/fuzz/found/NAME; a crash is written to build/fuzz/crashes/NAME-*: fix it, then put the file
# into fuzz/corpus/NAME, where the unit tests replay it.
set -euo pipefail
[ $# -eq 2 ] || { echo "usage: fuzz/run.sh NAME SECONDS (names: $(cd "$(dirname "$0")/corpus" && echo *))" >&2; exit 2; }
cd "$(dirname "$0")/.."
name=$1 seconds=$2
cmake --preset fuzz >/dev/null
cmake --build --preset fuzz --target "fuzz_$name"
mkdir -p "build/fuzz/found/$name" build/fuzz/crashes
exec nice -n 19 "build/fuzz/fuzz/fuzz_$name" -max_total_time="$seconds" -max_len=4096 -timeout=20 -rss_limit_mb=2048 \
  -print_final_stats=1 -artifact_prefix="build/fuzz/crashes/$name-" \
  "build/fuzz/found/$name" "fuzz/corpus/$name"
