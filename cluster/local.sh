#!/usr/bin/env bash
# Runs a sweep on this machine with a coordinator and N workers as separate processes that talk over
# TCP, as they would on a cluster. `scripts/biassweep run` does the same with less to watch; this
# shows each process with its own log and lets each be killed and looked at.
set -euo pipefail

here=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
# shellcheck source=scripts/set-up.sh
source "$here/../scripts/set-up.sh"

usage() {
  cat <<'HELP'
USAGE: cluster/local.sh (--preset P | --grid FILE) --ledger FILE
                        [--workers 2] [--threads T] [--logs DIR]

  --workers N   worker processes
  --threads T   threads of each worker (default: the program's)
  --logs DIR    where coordinator.log and worker-N.log go (default: LEDGER.logs)

The port is a free one, on the loopback address. Ctrl-C stops everything; the same command goes on
with the sweep. Status: that of the coordinator; 2 if all workers ended before the sweep.
HELP
}

bad_usage() {
  say "$1 (--help shows the usage)"
  exit 64
}

spec=() ledger='' workers=2 threads=() logs=''
while (($#)); do
  case $1 in
    -h | --help) usage && exit 0 ;;
    --preset | --grid | --ledger | --workers | --threads | --logs)
      if (($# < 2)); then bad_usage "$1 needs a value"; fi
      case $1 in
        --preset | --grid) spec=("$1" "$2") ;;
        --ledger) ledger=$2 ;;
        --workers) workers=$2 ;;
        --threads) threads=(--threads "$2") ;;
        --logs) logs=$2 ;;
      esac
      shift 2
      ;;
    *) bad_usage "$1 is not an option" ;;
  esac
done
if ((${#spec[@]} == 0)); then bad_usage "--preset or --grid is missing"; fi
if [[ -z $ledger ]]; then bad_usage "--ledger is missing"; fi
if [[ ! $workers =~ ^[1-9][0-9]{0,2}$ ]]; then bad_usage "--workers takes a number from 1"; fi

prepare_binary
fetch_inputs "$(spec_of "${spec[@]}")"
logs=${logs:-$ledger.logs}
mkdir -p "$logs"
address_file=$logs/address
rm -f "$address_file"

# Each process gets a group of its own, so that a Ctrl-C of the terminal reaches this script alone,
# which then stops them in order.
set -m

coordinator='' running=() interrupted=''

# Waits until all workers have ended; those that have not after 10 s are killed.
wait_for_workers() {
  local tenths
  for ((tenths = 100; tenths > 0; tenths--)); do
    if ! kill -0 "${running[@]}" 2>/dev/null; then return 0; fi
    sleep 0.1
  done
  kill -KILL "${running[@]}" 2>/dev/null || true
}

# Called by the trap. Workers go first, so that they can give their shards back.
# shellcheck disable=SC2317
stop() {
  interrupted=1
  kill -TERM "${running[@]}" 2>/dev/null || true
  wait_for_workers
  if [[ $coordinator ]]; then kill -TERM "$coordinator" 2>/dev/null || true; fi
}
trap stop INT TERM HUP EXIT

"$binary" coordinator "${spec[@]}" --ledger "$ledger" --port 0 --address-file "$address_file" \
  >"$logs/coordinator.log" 2>&1 &
coordinator=$!
until [[ -s $address_file ]]; do
  if ! kill -0 "$coordinator" 2>/dev/null; then
    status=0
    wait "$coordinator" || status=$?
    say "the coordinator ended with status $status before it served anyone:"
    cat "$logs/coordinator.log" >&2
    exit "$status"
  fi
  sleep 0.05
done
address=$(<"$address_file")
say "coordinator $coordinator at $address; logs in $logs"

for ((number = 1; number <= workers; number++)); do
  "$binary" worker --coordinator "$address" --grace 5 "${threads[@]}" \
    >"$logs/worker-$number.log" 2>&1 &
  running+=($!)
  say "worker $!, log $logs/worker-$number.log"
done

# The sweep is over when the coordinator ends. A worker that ends earlier is reported; the sweep
# goes on with the others.
status=''
while [[ -z $status ]]; do
  code=0
  wait -n -p ended "$coordinator" "${running[@]}" || code=$?
  if [[ -z ${ended-} ]]; then continue; fi # a signal woke `wait`
  if [[ $ended == "$coordinator" ]]; then
    status=$code
    continue
  fi
  for index in "${!running[@]}"; do
    if [[ ${running[index]} == "$ended" ]]; then unset "running[$index]"; fi
  done
  if ((code != 0)) && [[ -z $interrupted ]]; then
    say "worker $ended ended with status $code; its log is in $logs"
  fi
  if ((${#running[@]} == 0 && code != 0)) && kill -0 "$coordinator" 2>/dev/null; then
    if [[ -z $interrupted ]]; then say "no worker is left; stopping the coordinator"; fi
    kill -TERM "$coordinator" 2>/dev/null || true
    wait "$coordinator" || true
    status=2
  fi
done

# Workers end by themselves once the coordinator has said goodbye.
wait_for_workers
wait 2>/dev/null || true
tail -n 60 "$logs/coordinator.log" >&2
if [[ $interrupted ]]; then status=130; fi
exit "$status"
