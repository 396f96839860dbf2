#!/usr/bin/env bash
# tests/oracle/jinja.sh RUNNER: our template interpreter against Debian's python3-jinja2 on every snippet of jinja.py.
set -euo pipefail
exec /usr/bin/python3 "$(dirname "${BASH_SOURCE[0]}")/jinja.py" "$1"
