#!/usr/bin/env bash
# A Slurm cluster of one node on this machine, for tests: install (Debian), start FOLDER, stop FOLDER. Needs root.
set -euo pipefail

install() {
    command -v slurmctld slurmd munged sbatch >/dev/null && return
    apt-get update -qq
    apt-get install -y -qq --no-install-recommends slurm-wlm munge
}

start() {
    local folder
    mkdir -p "$1/state" "$1/spool" && folder=$(cd "$1" && pwd)
    [ ! -e /etc/slurm/slurm.conf ] || { echo "there is a /etc/slurm/slurm.conf: this machine has a Slurm of its own" >&2; exit 1; }
    head -c 1024 /dev/urandom >"$folder/munge.key" && chmod 400 "$folder/munge.key"
    munged --force --key-file="$folder/munge.key" --socket="$folder/munge.socket" --pid-file="$folder/munged.pid" \
        --log-file="$folder/munged.log" --seed-file="$folder/munged.seed"
    cat >"$folder/slurm.conf" <<CONF
ClusterName=lusbook
SlurmctldHost=$(hostname -s)(127.0.0.1)
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket=$folder/munge.socket
CredType=cred/munge
SlurmctldPort=16817
SlurmdPort=16818
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/slurmctld.log
SlurmdLogFile=$folder/slurmd.log
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
AccountingStorageType=accounting_storage/none
JobAcctGatherType=jobacct_gather/none
ReturnToService=2
MinJobAge=3600
NodeName=$(hostname -s) NodeAddr=127.0.0.1 CPUs=$(nproc) RealMemory=$(free -m | awk '/^Mem/ {print $2 - 512}')
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
CONF
    # Job steps find no other one: Slurm hands them no SLURM_CONF.
    ln -s "$folder/slurm.conf" /etc/slurm/slurm.conf
    slurmctld
    slurmd
    for _ in $(seq 60); do
        sinfo --noheader --format=%T 2>/dev/null | grep -q idle && return
        sleep 0.5
    done
    echo "the node is not idle after 30 s; see $folder/slurmd.log" >&2
    exit 1
}

stop() {
    local folder name
    folder=$(cd "$1" && pwd)
    scancel --user=root 2>/dev/null || true
    for name in slurmd slurmctld munged; do
        [ ! -s "$folder/$name.pid" ] || kill "$(cat "$folder/$name.pid")" 2>/dev/null || true
    done
    [ "$(readlink /etc/slurm/slurm.conf)" != "$folder/slurm.conf" ] || rm /etc/slurm/slurm.conf
}

"$@"
