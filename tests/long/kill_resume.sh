#!/usr/bin/env bash
# Training runs killed at random moments and resumed end in the bytes of undisturbed ones: 25 runs of each kind.
exec tests/cli/kill_resume "$PMETAL" random 25
