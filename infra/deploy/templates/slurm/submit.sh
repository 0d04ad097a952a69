#!/bin/bash
# Submits what the values file names, each job behind those that it needs. Paths are those of the folder that it is
# called in. Leave out lines by hand; each can be repeated: finished work is not done twice.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
environment="@{slurm.environment}"
if [ -n "$environment" ]; then
  # shellcheck source=/dev/null
  . "$environment"
fi
export AWS_REGION="@{storage.region}"
endpoint="@{storage.endpoint}"
if [ -n "$endpoint" ]; then
  export AWS_ENDPOINT_URL="$endpoint"
fi
@{slurm.submissions}
