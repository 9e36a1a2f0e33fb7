"""MinIO, an S3-compatible object store with conditional writes, and one bucket in it.

Run for tests only, never linked or shipped: its licence is AGPL. The project is archived, so the
version pinned here is its last commit.
"""

import urllib.error
import urllib.parse
import urllib.request

import containers
import runners
from install import need_version
from service import Service
from support import HOST, say

MODULE = "github.com/minio/minio"
VERSION = "v0.0.0-20260212201848-7aac2a2c5b7c"
KEY, SECRET, BUCKET = "millstream", "millstream-secret", "millstream"


class S3(Service):
    """One MinIO server."""

    name, variable, default_ports = "s3", "S3_ENDPOINT", (9000, 9001)
    process_env = {"MINIO_ROOT_USER": KEY, "MINIO_ROOT_PASSWORD": SECRET, "MINIO_UPDATE": "off"}
    IMAGE = "minio/minio:RELEASE.2025-09-07T16-13-09Z"

    def install(self, cache):
        def build(folder, run):
            # Since 1.21 a Go fetches the newer one that a module asks for.
            go = need_version("go", "golang", (1, 21), "version")
            say("building MinIO takes 2 to 4 minutes of two cores, once")
            run(go, "install", "-ldflags=-s -w", f"{MODULE}@{VERSION}",
                GOBIN=str(folder), CGO_ENABLED="0")   # no C compiler needed
        return cache.get(f"minio-{VERSION[-12:]}", build)

    def prepare(self, box, instance):
        # A folder made before the start is a bucket.
        (box.folder(instance) / "data" / BUCKET).mkdir(parents=True, exist_ok=True)

    def command(self, box, instance):
        return [self.install(box.cache) / "minio", "server",
                "--address", f"{HOST}:{box.port(9000)}",
                "--console-address", f"{HOST}:{box.port(9001)}", box.folder(instance) / "data"]

    def container(self, box, instance):
        return containers.Container(self.IMAGE, {box.port(9000): 9000}, self.process_env,
                                    ["server", "--address", ":9000", "/data"])

    def is_ready(self, box, instance):
        try:
            url = f"{self.exports(box)[self.variable]}/minio/health/ready"
            with urllib.request.urlopen(url, timeout=2) as answer:
                return answer.status == 200
        except (OSError, urllib.error.URLError):
            return False

    def settle(self, box):
        if runners.runner_of(box, self.name) is containers:
            containers.docker("exec", containers.container_name(box, self.name),
                              "mkdir", "-p", f"/data/{BUCKET}")

    def exports(self, box):
        url = f"http://{HOST}:{box.port(9000)}"
        return {self.variable: url, "S3_BUCKET": BUCKET, "AWS_ENDPOINT_URL": url,
                "AWS_ACCESS_KEY_ID": KEY, "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_REGION": "us-east-1", "AWS_ALLOW_HTTP": "true"}

    def endpoints(self, address):
        url = urllib.parse.urlsplit(address)
        return [(url.hostname or "localhost", url.port or (443 if url.scheme == "https" else 80))]
