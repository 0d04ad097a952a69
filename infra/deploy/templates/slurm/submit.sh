#!/bin/bash
# Submits what the values file names; leave out lines by hand, each can be repeated: finished work is not done twice.
set -euo pipefail
cd "$(dirname "$0")"
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
