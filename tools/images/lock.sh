#!/bin/sh
# Writes the lock files anew: every package that the images install, with its version and the sha256 of its files.
# Needs uv (from PyPI). Only wheels, but for kfp-server-api, which has none. What constraints.txt pins is taken as
# pinned; the rest is the newest that fits.
#
#   tools/images/lock.sh
set -eu
cd "$(dirname "$0")/../.."

lock() {
    echo "# Written by tools/images/lock.sh: change constraints.txt or pyproject.toml, and run it again."
    uv pip compile --quiet --generate-hashes --no-header --no-emit-index-url --no-annotate \
        --python-version 3.11 --python-platform linux --only-binary :all: --no-binary kfp-server-api \
        --constraint constraints.txt "$@"
}

work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
lock pyproject.toml --extra memory --extra metrics --extra mlflow --extra nodes --extra parquet --extra s3 >"$work/all"

# torch is chosen by the variant of the image, with the libraries of NVIDIA or without
awk -v torch="$work/torch" -v rest="$work/rest" '
    /^#/ { print >torch; print >rest; next }
    /^[a-z]/ { to = /^(torch|triton|nvidia-[a-z0-9-]+|cuda-[a-z-]+)==/ ? torch : rest }
    { print >to }
' "$work/all"

# what an image has beside: the packages of a lock that those before do not have
grep -hE '^[a-z0-9-]+==' "$work/rest" "$work/torch" | sed 's/ .*//' >"$work/pinned"
beside() {
    awk -v pinned="$work/pinned" '
        BEGIN { while ((getline line <pinned) > 0) { split(line, part, "=="); known[part[1]] = 1 } }
        /^[a-z]/ { split($1, part, "=="); skip = part[1] in known }
        !skip { print }
    '
}

# MLflow's server: the driver of PostgreSQL, and the client its artifacts go through
printf 'psycopg2-binary>=2.9,<3\nboto3>=1.40,<2\n' >"$work/mlflow.in"
lock --constraint "$work/pinned" "$work/mlflow.in" | beside >"$work/mlflow"

# the trigger's server: it compiles and submits pipelines of both engines
lock --constraint "$work/pinned" pyproject.toml --extra argo --extra kubeflow --extra metrics --extra mlflow --extra s3 --extra trigger |
    beside >"$work/trigger"

echo kfp >"$work/kfp.in"
lock --no-deps "$work/kfp.in" >"$work/kfp"

mv "$work/rest" docker/requirements.lock
mv "$work/torch" docker/torch-cuda.lock
mv "$work/mlflow" docker/mlflow.lock
mv "$work/trigger" docker/trigger.lock
mv "$work/kfp" docker/kfp.lock
