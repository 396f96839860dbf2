#!/usr/bin/env bash
# The quickstart as it runs on a processor with AVX2 alone: near chance before, above 90 % after, and the commands that
# it prints at the end work. PMETAL = the program, SCRATCH = a folder of this test.
set -euo pipefail
export PMETAL_MAX_ISA=avx2
rm -rf "$SCRATCH/first"
start=$SECONDS
"$PMETAL" quickstart --output "$SCRATCH/first" | tee "$SCRATCH/result.txt"
echo "took $((SECONDS - start)) s"

read -r before after < <(sed -nE 's/^exact match on .* questions: ([0-9.]+) % before, ([0-9.]+) % after.*/\1 \2/p' "$SCRATCH/result.txt")
awk -v before="$before" -v after="$after" 'BEGIN { exit !(before <= 10 && after > 90) }' ||
  { echo "accuracy: $before % before, $after % after; expected at most 10 and more than 90" >&2; exit 1; }

question=$(sed -n 's/^> //p' "$SCRATCH/result.txt")
expected=$(sed 's/.*: //' <<<"$question" | rev)
model=(--model "$SCRATCH/first/base" --lora "$SCRATCH/first/adapter")
answer=$("$PMETAL" infer "${model[@]}" --chat --prompt "$question")
[ "$answer" = "$expected" ] || { echo "\"$question\" was answered \"$answer\", not \"$expected\"" >&2; exit 1; }
answer=$("$PMETAL" infer "${model[@]}" --interactive <<<"$question")
grep -qF -- "$expected" <<<"$answer" || { echo "in a chat, \"$question\" was answered \"$answer\"" >&2; exit 1; }
"$PMETAL" eval "${model[@]}" --dataset "$SCRATCH/first/text/test.jsonl" --metric exact_match
"$PMETAL" train --model "$SCRATCH/first/base" --dataset "$SCRATCH/first/text/train.jsonl" --output "$SCRATCH/first/output" --max-steps 2
test -f "$SCRATCH/first/output/adapter_config.json"
rm -rf "$SCRATCH/first"
