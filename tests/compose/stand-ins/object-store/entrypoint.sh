#!/bin/bash
# A MinIO server, told what to do by the variables of RustFS.
export MINIO_ROOT_USER=${RUSTFS_ACCESS_KEY:-rustfsadmin}
export MINIO_ROOT_PASSWORD=${RUSTFS_SECRET_KEY:-rustfsadmin}
export MINIO_BROWSER=off MINIO_UPDATE=off
[ "$1" = rustfs ] || exec "$@"
exec minio server --quiet --address "${RUSTFS_ADDRESS:-:9000}" "${RUSTFS_VOLUMES:-/data}"
