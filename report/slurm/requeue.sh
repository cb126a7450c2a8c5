# until_time_is_over JOB COMMAND…: runs a command and returns what it does. Slurm's --signal=B:USR1@300 comes five minutes before the
# time of a job is over, which --requeue is not for: the job then goes back into the queue, by itself, and the command is ended.
until_time_is_over() {
  local job=$1 status
  shift
  "$@" &
  command=$!
  trap 'echo "out of time: back into the queue"; scontrol requeue "'"$job"'"; kill "$command"' USR1
  wait "$command"
  status=$?
  while kill -0 "$command" 2>/dev/null; do  # the signal ended the waiting, not the command
    wait "$command"
    status=$?
  done
  return "$status"
}
