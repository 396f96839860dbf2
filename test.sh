#!/usr/bin/env bash
# Installs what is missing, builds everything with tests and runs them.
#   ./test.sh               all ordinary tests
#   ./test.sh --all         the long ones as well (label "long": kill loops, big random sets, outside oracles)
#   ./test.sh --filter X    only tests whose name matches the regular expression X (`ctest -N` lists the names)
# Ends with ctest's summary; exits non-zero when a test fails or none ran.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

usage() { sed -n '2,6s/^# \{0,1\}//p' "$0" >&2; }
all=
selection=(--label-exclude '^long$')
while [ $# -gt 0 ]; do
  case $1 in
    --all)
      all=1
      selection=("${selection[@]:2}")
      ;;
    --filter)
      [ $# -ge 2 ] || { usage; exit 2; }
      selection+=(--tests-regex "$2")
      shift
      ;;
    -h | --help) usage; exit 0 ;;
    *) echo "test.sh: unknown argument \"$1\"" >&2; usage; exit 2 ;;
  esac
  shift
done

tools/install_packages core test
if [ -n "$all" ]; then
  tools/install_packages oracle
  command -v npm >/dev/null || tools/install_packages node
fi
tools/configure release -DPMETAL_TESTS=ON
cmake --build --preset release --parallel "$(nproc)"
ctest --test-dir build/release --parallel "$(nproc)" --output-on-failure --no-tests=error "${selection[@]}"
