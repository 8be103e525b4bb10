#!/bin/bash
# A session in an allocation that you hold: `salloc --nodes=2 --ntasks-per-node=2 ./salloc.sh`
#
# salloc runs this where you called it, once the nodes are yours. The engines are on the nodes, started by srun; the
# controller and your prompt are here. When you leave the prompt, the allocation is given back.

set -e
cluster=job$SLURM_JOB_ID
trap 'hpcremote stop --profile mpi --cluster-id "$cluster"' EXIT
hpcremote start -n "$SLURM_NTASKS" --profile mpi --cluster-id "$cluster" --set launcher=srun
export HPCREMOTE_PROFILE=mpi HPCREMOTE_CLUSTER_ID=$cluster        # Client() finds it
python "${@:--i}" # your prompt, or a program: salloc ... ./salloc.sh heat.py
