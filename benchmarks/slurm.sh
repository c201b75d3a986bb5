#!/usr/bin/env bash
# Sweeps and runs on a real SLURM: start a cluster of one node here, try what goes wrong on clusters, take it down.
#
#   sudo apt-get install slurm-wlm munge
#   benchmarks/slurm.sh                       all trials     -> benchmarks/results/slurm.json
#   benchmarks/slurm.sh requeue login         these trials, which replace their lines there
#   benchmarks/slurm.sh --help                the trials
#
# It needs root, as SLURM's daemons do; a container will do. PYTHON chooses the interpreter, NICE=5 has jobs leave the
# processors to others. The cluster lives in a temporary folder, which KEEP=1 leaves there. Exit status: 1 if a trial fails, 2 if there is no
# cluster.
set -euo pipefail

repository=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
python=${PYTHON:-python3}
export PYTHONPATH="$repository${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS=1
PATH=$PATH:/usr/sbin

for argument in "$@"; do
    case $argument in
    -h | --help)
        sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "${BASH_SOURCE[0]}"
        exec "$python" "$repository/benchmarks/slurm_trials.py" --list
        ;;
    esac
done
"$python" "$repository/benchmarks/slurm_trials.py" --check "$@"

fail() {
    printf 'error: %s\n' "$*" >&2
    exit 2
}

for program in slurmctld slurmd munged mungekey sbatch; do
    command -v "$program" >/dev/null || fail "$program is missing; apt-get install slurm-wlm munge"
done
[ "$(id -u)" = 0 ] || fail "SLURM's daemons need root"

folder=$(mktemp -d "${TMPDIR:-/tmp}/resnet-cli-slurm.XXXXXX")
munge_started=
trials=

kill_if_there() { # FILE with the number of a process
    local number
    number=$(cat "$1" 2>/dev/null) || return 0
    kill "$number" 2>/dev/null || return 0
    for _ in $(seq 50); do
        kill -0 "$number" 2>/dev/null || return 0
        sleep 0.1
    done
    kill -9 "$number" 2>/dev/null || true
}

take_down() {
    local status=$?
    trap - EXIT INT TERM HUP
    if [ -n "$trials" ]; then
        kill "$trials" 2>/dev/null || true
        wait "$trials" 2>/dev/null || true
    fi
    if [ -e "$folder/slurmctld.pid" ]; then
        timeout 20 scancel --quiet --user=root >/dev/null 2>&1 || true
        sleep 2
    fi
    kill_if_there "$folder/slurmd.pid"
    kill_if_there "$folder/slurmctld.pid"
    for steps in $(pgrep -f "slurmstepd: \[" || true); do # of this cluster alone
        tr '\0' '\n' <"/proc/$steps/environ" 2>/dev/null | grep -qx "SLURM_CONF=$SLURM_CONF" && kill -9 "$steps" || true
    done
    [ -z "$munge_started" ] || kill_if_there "$munge_started"
    if [ -n "${KEEP:-}" ]; then echo "kept: $folder"; else rm -rf "$folder"; fi
    exit "$status"
}
trap take_down EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

free_port() {
    "$python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])'
}

host=$(hostname -s)
mkdir -p "$folder/state" "$folder/spool" "$folder/log" "$folder/work"
chmod 755 "$folder"
export SLURM_CONF=$folder/slurm.conf
cat >"$SLURM_CONF" <<CONF
ClusterName=trial
SlurmctldHost=$host(127.0.0.1)
SlurmctldPort=$(free_port)
SlurmdPort=$(free_port)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
StateSaveLocation=$folder/state
SlurmdSpoolDir=$folder/spool
SlurmctldPidFile=$folder/slurmctld.pid
SlurmdPidFile=$folder/slurmd.pid
SlurmctldLogFile=$folder/log/slurmctld.log
SlurmdLogFile=$folder/log/slurmd.log
ReturnToService=2
SlurmdParameters=config_overrides
KillWait=10
NodeName=$host NodeAddr=127.0.0.1 CPUs=8 RealMemory=16000 State=UNKNOWN
PartitionName=trial Nodes=$host Default=YES MaxTime=INFINITE State=UP
CONF

if ! pgrep -x munged >/dev/null; then
    mkdir -p /run/munge
    [ -e /etc/munge/munge.key ] || mungekey
    chown munge /run/munge /etc/munge/munge.key
    runuser -u munge -- /usr/sbin/munged
    munge_started=/run/munge/munged.pid
fi
slurmctld
nice -n "${NICE:-0}" slurmd
for _ in $(seq 60); do
    [ "$(sinfo --noheader --format=%t 2>/dev/null)" != idle ] || break
    sleep 0.5
done
[ "$(sinfo --noheader --format=%t 2>/dev/null)" = idle ] || fail "the node did not come up; see $folder/log (KEEP=1)"

"$python" "$repository/benchmarks/slurm_trials.py" --folder "$folder/work" "$@" &
trials=$!
status=0
wait "$trials" || status=$?
trials=
exit "$status"
