#!/usr/bin/env bash
# fuzz/coverage.sh NAME: line coverage of the parser's files over fuzz/corpus/NAME (needs clang-14 and llvm-14).
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: fuzz/coverage.sh NAME" >&2; exit 2; }
cd "$(dirname "$0")/.."
name=$1
case $name in
  json) files="src/formats/json.cc src/formats/json_events.cc src/formats/json_reader.cc" ;;
  *) files="src/formats/$name.cc" ;;
esac
build=build/fuzz-coverage
cmake --preset fuzz -B $build -DPMETAL_SANITIZE=fuzzer-no-link -DCMAKE_BUILD_TYPE=Debug \
  -DCMAKE_CXX_FLAGS="-fprofile-instr-generate -fcoverage-mapping" >/dev/null
cmake --build $build --target "fuzz_$name" >/dev/null
LLVM_PROFILE_FILE=$build/$name.profraw $build/fuzz/fuzz_"$name" -runs=0 "fuzz/corpus/$name" 2>/dev/null
llvm-profdata-14 merge -o $build/"$name".profdata $build/"$name".profraw
report=$(llvm-cov-14 report $build/fuzz/fuzz_"$name" -instr-profile=$build/"$name".profdata)
head -1 <<<"$report"
for file in $files; do grep "^$file" <<<"$report"; done
if [ "${SHOW_MISSED:-}" ]; then  # SHOW_MISSED=1: the lines that no stored input reaches
  for file in $files; do
    llvm-cov-14 show $build/fuzz/fuzz_"$name" -instr-profile=$build/"$name".profdata |
      awk -v name="$PWD/$file:" '/^\// { on = $0 == name } on && (/^\// || /^ +[0-9]+\| +0\|/)'
  done
fi
