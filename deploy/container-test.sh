#!/bin/bash
# Builds the last stage of deploy/Containerfile offline around a static binary, weighs the image, and where the machine
# can, starts it with a read-only root: create, read, first admin, backup to a pipe, health command, restart, upgrade,
# clean stop, a volume of somebody else, any user of group 0.
#   deploy/container-test.sh [BINARY]     as root
# Exit 0: it held, or the machine can't (one line says why). Exit 1: something did not hold.
# shellcheck disable=SC2015  # && with || is meant
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "container-test: skipped: $1"; exit 0; }
fail() { echo "container-test: FAILED: $1"; exit 1; }
[ "$(id -u)" = 0 ] || skip "needs root"
command -v buildah >/dev/null || skip "buildah is not installed"

# podman wants cgroup2 alone, which a mount namespace of our own gives it; nothing of this outlives the script.
if [ -z "${IN_NAMESPACE:-}" ]; then exec env IN_NAMESPACE=1 unshare --mount -- "$0" "$@"; fi
work=$(mktemp -d /var/tmp/flaskpaste-container.XXXXXX)
storage=(--root "$work/storage" --runroot "$work/run" --storage-driver vfs)
end() {
	[ ! -d "$work/storage" ] || podman "${storage[@]}" rm -f -t 0 paste >/dev/null 2>&1 || true
	rm -rf "$work"
}
trap end EXIT
program=${1:-}
if [ -z "$program" ]; then
	deploy/release.sh "$work/built" "linux/$(go env GOARCH)"
	program=$(echo "$work"/built/flaskpaste-*)
fi
deploy/image.sh "$program" "$(go env GOARCH)" localhost/flaskpaste "${storage[@]}" || fail "the image does not build"
binary=$(stat -c %s "$program")
buildah "${storage[@]}" push -q localhost/flaskpaste "docker-archive:$work/image.tar" >/dev/null
image=$(tar -xOf "$work/image.tar" --wildcards '*.tar' | wc -c)
[ $((image - binary)) -lt 102400 ] || fail "the image has $((image - binary)) bytes more than the binary"
echo "container-test: binary $binary bytes, image $image bytes: $((image - binary)) more"

command -v podman >/dev/null && command -v crun >/dev/null || skip "podman or crun is not installed: the image was built and weighed, not started"
mount --make-rprivate /
umount -R /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup 2>/dev/null || skip "no cgroup2 to be had: the image was built and weighed, not started"
printf '[engine]\ncgroup_manager="cgroupfs"\nevents_logger="file"\n' >"$work/containers.conf"
export CONTAINERS_CONF=$work/containers.conf
pod() { podman "${storage[@]}" --log-level error "$@" 2> >(grep -vE 'CNI|timer|cgroup|systemd connection' >&2); }
# run starts the container paste with its volume in $1; only the host's loopback is its network.
run() {
	local volume=$1
	shift
	pod run -d --pull never --name paste --runtime crun --cgroups disabled --network none --ulimit nofile=4096:4096 --ulimit nproc=4096:4096 \
		--read-only --read-only-tmpfs=false --cap-drop all --security-opt no-new-privileges -v "$volume:/data" -e FLASKPASTE_MIN_FREE=0 -e FLASKPASTE_LISTEN=unix:/data/http.sock "$@" localhost/flaskpaste
}
umask 077
mkdir "$work/volume" && chown 65532:65532 "$work/volume"
with_pki() { # VOLUME: as at the top of deploy/Containerfile
	run "$1" --secret pki_ca_password,uid=65532,mode=0400 -e FLASKPASTE_PKI_ENABLED=1 \
		-e FLASKPASTE_PKI_CA_PASSWORD_FILE=/run/secrets/pki_ca_password
}
echo a-password-for-the-ca | pod secret create pki_ca_password - >/dev/null
with_pki "$work/volume" >/dev/null || skip "podman can't start a container here: the image was built and weighed"
answers() { for _ in $(seq 100); do pod exec paste /flaskpaste healthcheck 2>/dev/null && return; sleep 0.2; done; pod logs paste; fail "the health command says no"; }
answers
pod healthcheck run paste >/dev/null || fail "the image's own health check says no"
api() { curl -sS -m 30 --unix-socket "$work/volume/http.sock" "$@"; }
link=$(api -T - http://localhost/ <<<"from the outside")
[ "$(api "$link")" = "from the outside" ] || fail "a paste can't be read"
head -c 2000000 /dev/urandom >"$work/large"
[ "$(api -o /dev/null -w '%{http_code}' -F "file=@$work/large" http://localhost/)" = 201 ] || fail "no large paste with a read-only root"
pod exec paste /flaskpaste backup - >"$work/backup.db" || fail "no backup into a pipe"
env -i FLASKPASTE_DATABASE="$work/backup.db" FLASKPASTE_MIN_FREE=0 "$program" check >"$work/found" ||
	! grep -v '^the CA \|^the certificate of' "$work/found" || fail "the backup is not whole"
pod exec paste /flaskpaste pki issue alice --admin -o - >"$work/alice.pem" || fail "no first admin"
openssl x509 -in "$work/alice.pem" -noout -subject | grep -q 'CN = alice' ||
	fail "the first admin's certificate: $(head -c 200 "$work/alice.pem")"
main=$(pod inspect paste --format '{{.State.Pid}}')
grep -qE '^Uid:\s+65532\s+65532\s+65532\s+65532$' "/proc/$main/status" || fail "it is not user 65532"
grep -qE '^Cap(Eff|Bnd):\s+0+$' "/proc/$main/status" || fail "it has capabilities"
grep -qE '^NoNewPrivs:\s+1$' "/proc/$main/status" || fail "it may gain rights"
grep -qE '^\S+ / \S+ ro[, ]' "/proc/$main/mounts" || fail "the root can be written to"
resident=$(awk '$1 == "VmRSS:" {print $2}' "/proc/$main/status")
pod stop -t 25 paste >/dev/null
[ "$(pod inspect paste --format '{{.State.ExitCode}}')" = 0 ] || fail "the stop ended with $(pod inspect paste --format '{{.State.ExitCode}}')"
pod start paste >/dev/null && answers
[ "$(api "$link")" = "from the outside" ] || fail "a paste is gone after the restart"
# An upgrade, but for the image.
pod stop -t 25 paste >/dev/null && pod rm paste >/dev/null && with_pki "$work/volume" >/dev/null
answers
[ "$(api "$link")" = "from the outside" ] || fail "a paste is gone after the upgrade"
pod rm -f -t 10 paste >/dev/null

# OpenShift's way: any user of group 0, on a volume that the image's own /data filled.
run data --user 1000620000:0 >/dev/null
answers
pod exec paste /flaskpaste backup - >"$work/backup.db" && grep -qa '^SQLite format 3' "$work/backup.db" ||
	fail "user 1000620000 of group 0 can't use /data"
main=$(pod inspect paste --format '{{.State.Pid}}')
grep -qE '^Uid:\s+1000620000\s' "/proc/$main/status" || fail "it is not user 1000620000"
pod rm -f -t 10 paste >/dev/null
mkdir "$work/groups" && chown 65532:0 "$work/groups" && chmod 770 "$work/groups"
run "$work/groups" --user 1000620000:0 >/dev/null
answers
pod rm -f -t 10 paste >/dev/null

mkdir "$work/roots" && chmod 755 "$work/roots"
run "$work/roots" >/dev/null
pod wait paste >/dev/null
said=$(pod logs paste 2>&1)
[ "$(wc -l <<<"$said")" = 1 ] && grep -q '/data/.*permission denied$' <<<"$said" || fail "a volume of somebody else is explained as: $said"
echo "container-test: read-only root, user 65532, no capabilities; create, read, first admin, backup, health, stop, restart, upgrade, any user of group 0 hold; $((resident / 1024)) MiB resident"
