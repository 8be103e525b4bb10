#!/bin/bash
# A session in slots that you hold: `qrsh -now no -pe mpi 4 -l h_rt=0:30:00 -cwd -V ./qrsh.sh`
#
# qrsh runs this on the first of your hosts, once they are yours. Controller and prompt are there, the engines on all
# of them. When you leave the prompt, the slots are given back.

set -e
cluster=job$JOB_ID
trap 'hpcremote stop --profile mpi --cluster-id "$cluster"' EXIT
hpcremote start -n "$NSLOTS" --profile mpi --cluster-id "$cluster"
export HPCREMOTE_PROFILE=mpi HPCREMOTE_CLUSTER_ID=$cluster # Client() finds it
python "${@:--i}"                                          # your prompt, or a program: qrsh ... ./qrsh.sh ../heat.py
