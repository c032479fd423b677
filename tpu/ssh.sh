#!/usr/bin/env bash
# One command on several hosts over plain ssh, as one job: process N on the N-th host, which reach one another by these names.
#   tpu/ssh.sh HOST... -- immunax.train mesh=fsdp +defense=tar outputs=/shared/runs
# The checkout and its environment lie at the same place on every host ($IMMUNAX_CHECKOUT, by default that of this file).
# The job is started again where it ends with 143 or 142, and never with anything else. --dry-run before the hosts prints the calls.
set -euo pipefail

checkout=${IMMUNAX_CHECKOUT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
port=${IMMUNAX_PORT:-8476}
again_seconds=${IMMUNAX_AGAIN_SECONDS:-10}
again_most=${IMMUNAX_AGAIN_MOST:-1000}
dry=''
hosts=()
while [ $# -gt 0 ] && [ "$1" != -- ]; do
  case $1 in
  --dry-run) dry=1 ;;
  -*)
    echo "error: $1: no such option; there is --dry-run" >&2
    exit 2
    ;;
  *) hosts+=("$1") ;;
  esac
  shift
done
if [ ${#hosts[@]} -eq 0 ] || [ $# -lt 2 ]; then
  echo "error: expected hosts and a command: tpu/ssh.sh HOST... -- immunax.train OVERRIDES" >&2
  exit 2
fi
shift
command -v ssh >/dev/null || {
  echo "error: ssh is not on PATH: install an OpenSSH client" >&2
  exit 2
}

children=()
stopping=''

# The job's processes end by themselves, and with one another, where one gets a signal: ssh hands it on through its terminal.
stop() {
  stopping=$1
  [ ${#children[@]} -eq 0 ] || kill -TERM "${children[@]}" 2>/dev/null || true
}
trap 'stop 143' TERM
trap 'stop 130' INT

call() {
  local index=$1
  shift
  local where=("distributed.coordinator=${hosts[0]##*@}:$port" "distributed.processes=${#hosts[@]}" "distributed.process_id=$index")
  printf -v remote '%q ' "$checkout/.venv/bin/python" -m "$@" "${where[@]}"
  # A terminal of its own: what ends the connection then ends the command.
  calling=(ssh -tt -o BatchMode=yes -o ServerAliveInterval=30 "${hosts[$index]}" "cd $(printf '%q' "$checkout") && exec ${remote% }")
}

times=0
while :; do
  children=()
  for index in "${!hosts[@]}"; do
    call "$index" "$@"
    if [ -n "$dry" ]; then
      printf '%q ' "${calling[@]}"
      echo
    elif [ "$index" = 0 ]; then
      "${calling[@]}" </dev/null &
      children+=($!)
    else
      "${calling[@]}" </dev/null >/dev/null &
      children+=($!)
    fi
  done
  [ -z "$dry" ] || exit 0
  again=''
  worst=0
  for index in "${!children[@]}"; do
    status=0
    while :; do
      status=0
      wait "${children[$index]}" || status=$?
      kill -0 "${children[$index]}" 2>/dev/null || break
    done
    [ -z "$stopping" ] || continue
    case $status in
    0) ;;
    142 | 143) again=$status ;;
    255)
      echo "ssh: the connection to ${hosts[$index]} failed, or was cut" >&2
      again=142
      ;;
    # The lower number says more: 2 of a mistake, 1 of a bug.
    *) { [ "$worst" -ne 0 ] && [ "$status" -ge "$worst" ]; } || worst=$status ;;
    esac
  done
  [ -z "$stopping" ] || exit "$stopping"
  [ "$worst" -eq 0 ] || exit "$worst"
  [ -n "$again" ] || exit 0
  times=$((times + 1))
  if [ "$times" -gt "$again_most" ]; then
    echo "error: ended with $again $times times: giving up" >&2
    exit "$again"
  fi
  echo "ended with $again, starting again ($times) in $again_seconds s" >&2
  sleep "$again_seconds" &
  wait $! || true
  [ -z "$stopping" ] || exit "$stopping"
done
