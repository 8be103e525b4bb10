#!/bin/bash
# Engines in the queue, you at a prompt: `./interactive.sh`, on the login node.
#
# The job lives on when this script, your terminal or your notebook ends: come back to it from any login node by
# hpcremote.Client(profile="interactive"). `hpcremote stop` ends it.

set -e
profiles=${HPCREMOTE_DIR:-$HOME/.hpcremote}/profiles
mkdir -p "$profiles"
cp interactive.yaml "$profiles/"

hpcremote start --profile interactive --dry-run    # what would be submitted
hpcremote start --profile interactive              # waits in the queue, and says why
hpcremote status --profile interactive
HPCREMOTE_PROFILE=interactive python "${@:--i}"    # a prompt, or: ./interactive.sh heat.py
hpcremote stop --profile interactive
