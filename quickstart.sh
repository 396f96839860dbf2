#!/usr/bin/env bash
# From a bare Debian 12 to a language model that trains, is fine-tuned and answers on this CPU. Installs the
# packages that are missing, builds build/release/pmetal (no tests, no CUDA), then runs `pmetal quickstart`,
# which gets the arguments given here. A second run starts at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"

tools/install_packages core
if [ -f build/release/CMakeCache.txt ]; then
  tools/configure release # keep what the developer chose
else
  tools/configure release -DPMETAL_TESTS=OFF -DPMETAL_CUDA=OFF
fi
echo "Building build/release/pmetal ..." >&2
cmake --build --preset release --target pmetal --parallel "$(nproc)" >&2
exec build/release/pmetal quickstart "$@"
