#!/bin/bash
# A session in nodes that you hold: `qsub -I -l select=2:ncpus=2:mpiprocs=2 -l walltime=0:30:00`, and there, in this folder,
# `./session.sh`.
#
# Controller and prompt are on the first of your nodes, the engines on all of them. Leave the prompt and the shell of
# `qsub -I`, and the nodes are given back.

set -e
cluster=job${PBS_JOBID%%.*}
trap 'hpcremote stop --profile mpi --cluster-id "$cluster"' EXIT
hpcremote start -n "$(wc -l < "$PBS_NODEFILE")" --profile mpi --cluster-id "$cluster"
export HPCREMOTE_PROFILE=mpi HPCREMOTE_CLUSTER_ID=$cluster # Client() finds it
python "${@:--i}"                                          # your prompt, or a program: ./session.sh ../heat.py
