#!/usr/bin/env bash
# fuzz/coverage.sh NAME: line coverage of the parser's files over fuzz/corpus/NAME (needs clang-14 and llvm-14).
set -euo pipefail
[ $# -eq 1 ] || { echo "usage: fuzz/coverage.sh NAME" >&2; exit 2; }
cd "$(dirname "$0")/.."
name=$1
case $name in
  json) files="src/formats/json.cc src/formats/json_events.cc src/formats/json_reader.cc" ;;
  json_lines) files="src/formats/json_stream.cc src/formats/compression.cc" ;;
  parquet) files="src/formats/parquet.cc src/formats/parquet_decode.cc src/formats/parquet_schema.cc src/formats/thrift.cc src/formats/block_codec.cc" ;;
  record) files="src/data/record.cc" ;;
  jinja) files=$(ls src/text/template/*.cc | grep -v _test) ;;
  chat_request) files=$(ls src/text/chat/*.cc src/text/chat/parsers/*.cc | grep -v -e _test -e model_dir) ;;
  sentencepiece) files="src/text/tokenizer/sentencepiece.cc src/text/tokenizer/sentencepiece_model.cc" ;;
  tokenizer_json) files=$(ls src/text/tokenizer/*.cc | grep -v -e _test -e bpe_trainer -e sentencepiece -e unicode_) ;;
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
# a file whose lines are data only has no row
for file in $files; do grep -E "^(../../)?$file" <<<"$report" || true; done | tee $build/"$name".rows
awk '{ lines += $8; missed += $9 } END { if (lines) printf "%.1f %% of %d lines\n", 100 * (1 - missed / lines), lines }' $build/"$name".rows
if [ "${SHOW_MISSED:-}" ]; then  # SHOW_MISSED=1: the lines that no stored input reaches
  for file in $files; do
    llvm-cov-14 show $build/fuzz/fuzz_"$name" -instr-profile=$build/"$name".profdata |
      awk -v name="$PWD/$file:" '/^\// { on = $0 == name } on && (/^\// || /^ +[0-9]+\| +0\|/)'
  done
fi
