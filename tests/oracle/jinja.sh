#!/usr/bin/env bash
# tests/oracle/jinja.sh RUNNER: our template interpreter against Debian's python3-jinja2, on every snippet of jinja.py and
# on random conversations.
set -euo pipefail
here=$(dirname "${BASH_SOURCE[0]}")
export PYTHONDONTWRITEBYTECODE=1
/usr/bin/python3 "$here/jinja.py" "$1"
/usr/bin/python3 -W ignore "$here/random_templates.py" "$1" 6000
/usr/bin/python3 "$here/conversations.py" "$1" 4000
