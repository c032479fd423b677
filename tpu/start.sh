#!/usr/bin/env bash
# On each machine of a slice, or each host of a list: installs immunax beside this file, runs one command until it ends by
# itself, and tells of it. Every call may be made again: what is done is not done twice.
#
#   start.sh install gs://BUCKET/wheels   uv's locked packages; the bucket keeps them, by the lock file's digest
#   start.sh run NAME=VALUE... -- COMMAND starts the command, detached
#   start.sh rerun NAME=VALUE... -- COMMAND the same, but not where it was stopped or has ended by itself
#   start.sh follow LINE MARK             its log from a line on, numbered; immunax: MARK now, behind what was there; and at the
#                                         end immunax: MARK ended STATUS, and "given up" behind it where it was
#   start.sh state | stop                 whether it runs; SIGTERM to it, which saves and ends
#
# The command is started again where it ends with 142 (another process was lost) or by a signal (143, 137 of a kill, 139 ...),
# by itself and not because this script was told to stop; never with 2 (a mistake), 1 (a bug), 130 (Ctrl-C) or anything else.
# Of starts in a row that last less than $IMMUNAX_LASTING seconds there are $IMMUNAX_AGAIN_MOST at most, and ten times as many
# of all: a slice is paid for.
set -euo pipefail

code=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
home=${IMMUNAX_HOME:-$HOME/immunax}
job=$home/job
uv_version=0.9.5
again_seconds=${IMMUNAX_AGAIN_SECONDS:-10}
again_most=${IMMUNAX_AGAIN_MOST:-10}
lasting=${IMMUNAX_LASTING:-900}
boot=/proc/sys/kernel/random/boot_id
mkdir -p "$job"

# Cloud TPU ends a host's name with w-NUMBER; elsewhere the launcher says it.
worker() {
  local name
  name=${IMMUNAX_WORKER:-$(hostname)}
  echo "${name##*-}"
}

find_uv() {
  PATH=$home/bin:$PATH
  command -v uv >/dev/null && return
  local try
  for try in 1 2 3; do
    curl -LsSf "https://astral.sh/uv/$uv_version/install.sh" |
      env UV_INSTALL_DIR="$home/bin" UV_NO_MODIFY_PATH=1 sh >&2 && return
    sleep "$try"
  done
  echo "immunax: uv could not be installed from astral.sh" >&2
  return 1
}

install() {
  local bucket=$1 digest kept
  exec 9>"$home/install.lock"
  flock 9
  digest=$(sha256sum <"$code/uv.lock" | cut -c1-16)-$(uname -m)
  if [ "$(cat "$code/.installed" 2>/dev/null)" != "$digest" ]; then
    export UV_CACHE_DIR=$home/uv UV_PYTHON_INSTALL_DIR=$home/python
    kept=$bucket/$digest.tar
    if [ ! -d "$UV_CACHE_DIR" ]; then
      gcloud storage cp "$kept" - 2>/dev/null | tar -x -C "$home" 2>/dev/null || {
        kept=missing
        rm -rf "$UV_CACHE_DIR" # half of it
      }
    fi
    find_uv
    (cd "$code" && uv sync --frozen --no-dev --no-group docs --extra tpu --extra bucket --quiet) >&2
    if [ "$kept" = missing ] && [ "$(worker)" = 0 ]; then
      # The first machine of a slice keeps them for all that come; a later one may have done so meanwhile.
      mkdir -p "$home/bin" "$home/python"
      tar -c -C "$home" bin uv python |
        gcloud storage cp - "$bucket/$digest.tar" --if-generation-match=0 >&2 ||
        echo "immunax: the packages were not kept on the bucket" >&2
    fi
    echo "$digest" >"$code/.installed"
  fi
  echo "immunax: installed $(worker)"
}

alive() {
  [ -f "$job/pid" ] && [ ! -f "$job/status" ] || return
  # Behind a reboot the number is another program's; and where nobody waits for it, one that was killed keeps its number.
  [ "$(cat "$job/boot" 2>/dev/null)" = "$(cat $boot)" ] || return
  grep -qs '^State:[[:space:]][^ZX]' "/proc/$(cat "$job/pid")/status"
}

run() {
  exec 9>"$home/run.lock"
  flock 9
  if alive; then
    if cmp -s <(printf '%s\0' "$@") "$job/command"; then
      echo "immunax: running $(worker)"
      return
    fi
    echo "immunax: refused: worker $(worker) runs another command; end it with: python -m tpu.launch stop NAME"
    return 2
  fi
  rm -f "$job/status" "$job/stopped" "$job/given-up" "$job/log" "$job/pid"
  cat "$boot" >"$job/boot"
  printf '%s\0' "$@" >"$job/command"
  setsid nohup bash "$code/tpu/start.sh" supervise </dev/null >"$job/log" 2>&1 9>&- &
  echo $! >"$job/pid"
  echo "immunax: started $(worker)"
}

# Whether what ended so may be started again.
is_lost() {
  [ "$1" -gt 128 ] && [ "$1" != 130 ]
}

rerun() {
  if ! alive && { [ -f "$job/stopped" ] || ! is_lost "$(cat "$job/status" 2>/dev/null || echo 142)"; }; then
    echo "immunax: left $(worker)"
  else
    run "$@"
  fi
}

log_on_bucket() {
  if [ -n "${IMMUNAX_LOGS:-}" ]; then
    gcloud storage cp "$job/log" "$IMMUNAX_LOGS/${IMMUNAX_WORKER:-$(hostname)}.log" >/dev/null 2>&1 || true
  fi
}

supervise() {
  local words=() variables=() status=0 stopping='' signalled='' child='' times=0 all=0 begun
  mapfile -d '' -t words <"$job/command"
  while [ "${words[0]}" != -- ]; do
    variables+=("${words[0]}")
    words=("${words[@]:1}")
  done
  words=("${words[@]:1}")
  [ ${#variables[@]} -eq 0 ] || export "${variables[@]}"
  trap 'stopping=1 signalled=1; [ -z "$child" ] || kill -TERM "$child" 2>/dev/null' TERM INT
  export PATH=$code/.venv/bin:$PATH
  # The port that Cloud TPU's own firewall rule opens between the machines of a slice.
  export JAX_COORDINATOR_PORT=${JAX_COORDINATOR_PORT:-8476}
  cd "$home"
  while [ -z "$stopping" ]; do
    begun=$SECONDS
    env "${words[@]}" &
    child=$!
    while :; do
      signalled=''
      status=0
      wait "$child" || status=$?
      [ -n "$signalled" ] || break
    done
    child=''
    is_lost "$status" && [ -z "$stopping" ] || break
    [ $((SECONDS - begun)) -lt "$lasting" ] || times=0
    if [ "$times" -ge "$again_most" ] || [ "$all" -ge $((10 * again_most)) ]; then
      touch "$job/given-up"
      break
    fi
    times=$((times + 1)) all=$((all + 1))
    log_on_bucket
    echo "immunax: ended with $status, starting again ($times) in $again_seconds s"
    sleep "$again_seconds" &
    wait $! || true
  done
  log_on_bucket
  echo "$status" >"$job/status.new"
  mv "$job/status.new" "$job/status"
}

follow() {
  local number=1 first=$1 mark=$2 line='' part='' over='' now='' status
  exec 3<"$job/log"
  while :; do
    alive || over=1
    while IFS= read -r part <&3 || { line=$line$part && false; }; do
      # With its number: gcloud calls this again by itself where the connection is cut.
      [ "$number" -lt "$first" ] || printf '%d\t%s\n' "$number" "$line$part"
      number=$((number + 1))
      line=''
    done
    [ -n "$now" ] || echo "immunax: $mark now"
    now=1
    [ -z "$over" ] || break
    sleep 0.2
  done
  [ -z "$line" ] || printf '%d\t%s\n' "$number" "$line"
  # What was killed with no word may be started again; what somebody stopped may not.
  status=$(cat "$job/status" 2>/dev/null || echo 142)
  [ ! -f "$job/stopped" ] || status=130
  echo "immunax: $mark ended $status$([ ! -f "$job/given-up" ] || echo ' given up')"
}

state() {
  if alive; then
    echo "worker $(worker): running, process $(cat "$job/pid")"
  else
    echo "worker $(worker): $([ -f "$job/status" ] && echo "ended with $(cat "$job/status")" || echo "nothing runs")"
  fi
}

stop() {
  if alive; then
    touch "$job/stopped"
    kill -TERM "$(cat "$job/pid")"
    while alive; do sleep 0.2; done
  fi
  state
}

case ${1:-} in
install | run | rerun | supervise | follow | state | stop) "$@" ;;
*)
  echo "usage: start.sh install gs://BUCKET/wheels | run [NAME=VALUE]... -- COMMAND | rerun ... | follow LINE MARK | state | stop" >&2
  exit 2
  ;;
esac
