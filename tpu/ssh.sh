#!/usr/bin/env bash
# One command on several hosts over plain ssh, as one job: process N on the N-th host, which reach one another by these names.
#   tpu/ssh.sh HOST... -- immunax.train mesh=fsdp +defense=tar outputs=/shared/runs
# The checkout and its environment lie at the same place on every host ($IMMUNAX_CHECKOUT, by default that of this file). On each
# start.sh runs the command, detached, and starts it again where it is stopped or killed, or another process is lost; this script
# prints the first host's log, has the command started where it is gone whenever the first host's starts again, and ends with its
# exit status. Ctrl-C or SIGTERM has every host save and end; the same line then goes on from there.
# --dry-run before the hosts prints the calls.
set -euo pipefail

checkout=${IMMUNAX_CHECKOUT:-$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)}
home=${IMMUNAX_HOME:-/tmp/immunax-$(id -un)}
port=${IMMUNAX_PORT:-8476}
tries=${IMMUNAX_TRIES:-5}
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

# Has start.sh do something on the host of an index; each word arrives there as it is.
on() {
  local index=$1 remote
  shift
  printf -v remote '%q ' env "IMMUNAX_HOME=$home/$index" "IMMUNAX_WORKER=w-$index" bash "$checkout/tpu/start.sh" "$@"
  set -- ssh -o BatchMode=yes -o ServerAliveInterval=30 -o ConnectTimeout=20 "${hosts[$index]}" "${remote% }"
  if [ -n "$dry" ]; then
    printf '%q ' "$@"
    echo
  else
    "$@" </dev/null
  fi
}

# shellcheck disable=SC2329 # by the traps below
stop() {
  trap '' TERM INT
  echo "stopping: every host saves and ends, and the same command goes on from there" >&2
  local index
  for index in "${!hosts[@]}"; do
    on "$index" stop >&2 || echo "${hosts[$index]} could not be told to stop" >&2
  done
  exit "$1"
}
trap 'stop 143' TERM
trap 'stop 130' INT

# Has the command start on the host of an index: run, or rerun.
start() {
  local index=$1 how=$2
  shift 2
  on "$index" "$how" -- python -m "$@" "distributed.coordinator=${hosts[0]##*@}:$port" \
    "distributed.processes=${#hosts[@]}" "distributed.process_id=$index" >&2
}

for index in "${!hosts[@]}"; do
  if ! start "$index" run "$@"; then
    echo "error: ${hosts[$index]} did not start it; $index hosts before it did: end them with the same hosts and Ctrl-C" >&2
    exit 4
  fi
done

mark=$RANDOM$RANDOM
next=1
silent=0
status=''
while [ -z "$status" ]; do
  silent=$((silent + 1))
  now=''
  # In the background, so that a signal is heard at once.
  exec 3< <(on 0 follow "$next" "$mark" || true)
  while IFS= read -r line <&3; do
    case $line in
    "immunax: $mark ended "*)
      status=${line#*" ended "}
      status=${status%% *}
      ;;
    "immunax: $mark now") now=1 ;;
    *$'\t'*)
      echo "${line#*$'\t'}"
      case $now$line in
      1*$'\t'"immunax: ended with "*", starting again ("*)
        # A host that went down, or gave up, does not come back by itself.
        for index in "${!hosts[@]}"; do
          start "$index" rerun "$@" || echo "${hosts[$index]} could not be told to start it again" >&2
        done
        ;;
      esac
      next=$((${line%%$'\t'*} + 1))
      silent=0
      ;;
    *) [ -z "$dry" ] || { echo "$line" && status=0; } ;;
    esac
  done
  exec 3<&-
  if [ -z "$status" ] && [ "$silent" -ge "$tries" ]; then
    echo "error: ${hosts[0]} does not say how the command stands; it goes on there: the same line connects again" >&2
    exit 4
  fi
done
exit "$status"
