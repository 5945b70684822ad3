#!/bin/bash
# Boots a real systemd as process 1 of a container (systemd-nspawn on a Debian root) with the units of this repository,
# and tries what an operator relies on: create, read, certificates, backup, watchdog, crash, restart and SIGHUP under
# load, reboot.
#   deploy/systemd-test.sh [BINARY]     as root; the Debian root is made once and kept in $XDG_CACHE_HOME
# Exit 0: all of it held, or the machine can't do this (one line says why). Exit 1: something did not hold.
# shellcheck disable=SC2015,SC2016  # set -euo pipefailset -euo pipefail with || is meant; awk programs are not the shell's
set -euo pipefail
cd "$(dirname "$0")/.."
skip() { echo "systemd-test: skipped: $1"; exit 0; }
[ "$(id -u)" = 0 ] || skip "needs root"
for tool in systemd-nspawn debootstrap nsenter; do command -v $tool >/dev/null || skip "$tool is not installed"; done

cache=${XDG_CACHE_HOME:-$HOME/.cache}/flaskpaste-deploy
packages=systemd,systemd-sysv,dbus,iproute2,curl,procps,sqlite3
mkdir -p "$cache"
exec 9>"$cache/rootfs.lock" && flock 9
if [ "$(cat "$cache/rootfs.made" 2>/dev/null)" != "$packages" ]; then
	rm -rf "$cache/rootfs" "$cache/rootfs.made"
	nice -n 10 debootstrap --variant=minbase --include=$packages bookworm "$cache/rootfs" >"$cache/debootstrap.log" 2>&1 ||
		skip "debootstrap failed (no network?): $(tail -n 1 "$cache/debootstrap.log")"
	echo $packages >"$cache/rootfs.made"
fi
flock -u 9

work=$(mktemp -d /var/tmp/flaskpaste-systemd.XXXXXX)
binary=${1:-$work/flaskpaste}
[ $# -gt 0 ] || CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$binary" .
nspawn="" pid1=""
end() {
	status=$?
	if [ -n "$nspawn" ]; then
		touch "$work/root/root/stop" # of a load that still runs
		kill -TERM "$nspawn" 2>/dev/null || true
		for _ in $(seq 50); do kill -0 "$nspawn" 2>/dev/null || break; sleep 0.2; done
		kill -KILL "$nspawn" 2>/dev/null || true
	fi
	umount "$work/root" 2>/dev/null || umount -l "$work/root" || true
	rm -rf "$work"
	[ $status = 0 ] || echo "systemd-test: FAILED"
}
trap end EXIT
fail() {
	echo "systemd-test: $1"
	inside systemctl --no-pager --lines=0 status flaskpaste.service flaskpaste.socket || true
	inside journalctl --no-pager -q -n 25 -u flaskpaste.service -u flaskpaste.socket -u flaskpaste-backup.service || true
	exit 1
}

# The root is an overlay, so that the cached one stays as it was made.
mkdir "$work/root" "$work/upper" "$work/overlay"
mount -t overlay overlay -o "lowerdir=$cache/rootfs,upperdir=$work/upper,workdir=$work/overlay" "$work/root"
install -D -m 755 "$binary" "$work/root/usr/local/bin/flaskpaste"
install -D -m 755 deploy/backup.sh "$work/root/usr/local/lib/flaskpaste/backup.sh"
units=$work/root/etc/systemd/system
install -m 644 flaskpaste.service flaskpaste.socket "$units/"
install -m 644 deploy/backup.service "$units/flaskpaste-backup.service"
install -m 644 deploy/backup.timer "$units/flaskpaste-backup.timer"
install -d -m 700 "$work/root/etc/credstore" "$work/root/etc/flaskpaste"
secret=0123456789abcdef-proxy
(umask 077; echo $secret >"$work/root/etc/credstore/flaskpaste.proxy_secret"; echo correct-horse-battery >"$work/root/etc/credstore/flaskpaste.pki_ca_password")
cat >"$work/root/etc/flaskpaste/env" <<-EOF
	FLASKPASTE_TRUSTED_PROXIES=127.0.0.1
	FLASKPASTE_POW_DIFFICULTY=0
	FLASKPASTE_RATE_CREATE=0
	FLASKPASTE_RATE_READ=0
	FLASKPASTE_RATE_MISS=0
	FLASKPASTE_RATE_BYTES=0
	FLASKPASTE_DEDUP_MAX=0
	FLASKPASTE_MIN_FREE=0
EOF
echo FLASKPASTE_PKI_ENABLED=1 >>"$work/root/etc/flaskpaste/env"

inside() { nsenter -t "$pid1" -a -- "$@"; }
# boot starts the container, waits until its systemd has started everything, and sets nspawn and pid1.
boot() {
	SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1 systemd-nspawn --quiet --register=no --keep-unit -D "$work/root" --private-network \
		--capability=all --system-call-filter="bpf perf_event_open" --console=pipe --boot </dev/null >"$work/console" 2>&1 &
	nspawn=$!
	for _ in $(seq 300); do
		pid1=$(pgrep -P "$nspawn" | head -n 1) || true
		if [ -n "$pid1" ]; then
			case $(inside systemctl is-system-running 2>/dev/null || true) in running | degraded) return ;; esac
		fi
		kill -0 "$nspawn" 2>/dev/null || break
		sleep 0.2
	done
	cat "$work/console"
	return 1
}
boot || skip "systemd-nspawn can't boot here"
echo "systemd-test: $(inside systemctl --version | head -n 1) is process 1"

url=http://127.0.0.1:5000
state=/var/lib/private/flaskpaste
api() { inside curl -sS -m 30 "$@"; }
property() { inside systemctl show -P "$1" flaskpaste.service; }
# healthy waits at most $1 seconds for a 200 of /health.
healthy() { inside curl -sS -o /dev/null --fail --retry "$1" --retry-delay 1 --retry-all-errors -m 5 $url/health 2>/dev/null || fail "the server did not come back"; }

inside systemctl enable -q --now flaskpaste.socket flaskpaste.service flaskpaste-backup.timer || fail "the units did not start"

# ---- create, read; the status that systemd was told ----
first=$(api -T - $url/ <<<"before everything")
[ "$(api "$first")" = "before everything" ] || fail "a paste can't be read"
[ "$(property StatusText)" = serving ] || fail "status is $(property StatusText)"

# ---- what the sandbox leaves: one place to write, one program to run, no right, no network ----
main=$(property MainPID)
writable=$(inside awk '$4 ~ /^rw/ && $3 !~ /^(proc|devpts|mqueue|hugetlbfs|sysfs|cgroup2?)$/ {print $2}' "/proc/$main/mounts")
[ "$writable" = /var/lib/flaskpaste ] || fail "writable: $writable"
runnable=$(inside awk '$4 !~ /(^|,)noexec(,|$)/ && $2 !~ "^/run/systemd/(notify|incoming)$" {print $2}' "/proc/$main/mounts")
[ "$runnable" = /usr/local/bin/flaskpaste ] || fail "runnable: $runnable"
inside grep -qE '^CapBnd:\s+0+$' "/proc/$main/status" || fail "it has capabilities"
inside grep -qE '^NoNewPrivs:\s+1$' "/proc/$main/status" || fail "it may gain rights"
inside grep -qE '^Seccomp:\s+2$' "/proc/$main/status" || fail "no system call filter"
interfaces=$(inside awk -F: 'NR > 2 {gsub(/ /, "", $1); print $1}' "/proc/$main/net/dev")
[ "$interfaces" = lo ] || fail "it sees the interfaces $interfaces"
resident=$(inside awk '$1 == "VmRSS:" {print $2}' "/proc/$main/status")
[ "$resident" -lt 32768 ] || fail "$resident KiB resident when idle"
echo "systemd-test: sandbox holds; idle resident size $((resident / 1024)) MiB"

# ---- certificates, with the operator's commands as root beside the running server ----
admin() { inside env FLASKPASTE_DATABASE=$state/flaskpaste.db FLASKPASTE_PKI_CA_PASSWORD_FILE=/etc/credstore/flaskpaste.pki_ca_password /usr/local/bin/flaskpaste "$@"; }
admin pki issue alice -o /root/alice.pem >/dev/null || fail "no certificate was issued"
certificate=$(inside awk '/BEGIN CERTIFICATE/ {on = 1; next} /END CERTIFICATE/ {exit} on {printf "%s", $0}' /root/alice.pem)
as_alice() { api -H "X-Proxy-Secret: $secret" -H "X-SSL-Client-SHA1: $certificate" "$@"; }
hers=$(as_alice -T - $url/ <<<"a paste of alice")
[ "$(as_alice -o /dev/null -w '%{http_code}' $url/pastes)" = 200 ] || fail "a certificate is not taken"
as_alice $url/pastes | grep "$(basename "$(dirname "$hers")")" >/dev/null || fail "her list lacks her paste"
[ "$(api -H "X-SSL-Client-SHA1: $certificate" -o /dev/null -w '%{http_code}' $url/pastes)" = 401 ] || fail "a certificate is taken without the proxy's secret"
echo "systemd-test: create, read, certificates hold"

# ---- the journal: what matters has its priority ----
journal() { inside journalctl -q --no-pager -u flaskpaste.service "$@"; }
[ "$(api -o /dev/null -w '%{http_code}' -X DELETE -H 'X-Delete-Token: wrong' "${first%/raw}")" = 403 ] ||
	fail "a wrong token deletes"
journal -p warning | grep -q '"audit":true' || fail "no audit line at priority warning: $(journal -n 3)"
! journal -p warning | grep -q '"level":"INFO"' || fail "request lines have priority warning"

# ---- a door that a drop-in changes ----
inside mkdir -p /etc/systemd/system/flaskpaste.socket.d
printf '[Socket]\nListenStream=\nListenStream=/run/flaskpaste.sock\nSocketGroup=www-data\nSocketMode=0660\n' |
	inside sh -c 'cat >/etc/systemd/system/flaskpaste.socket.d/test.conf'
inside systemctl daemon-reload
inside systemctl restart flaskpaste.socket || fail "the socket does not restart"
mode=$(inside stat -c %U:%G:%a /run/flaskpaste.sock)
[ "$mode" = root:www-data:660 ] || fail "the Unix socket is $mode"
api --unix-socket /run/flaskpaste.sock -o /dev/null --fail http://localhost/health ||
	fail "nobody answers on the new door"
if api -m 2 -o /dev/null $url/health 2>/dev/null; then fail "the old door is open"; fi
inside rm -r /etc/systemd/system/flaskpaste.socket.d /run/flaskpaste.sock
inside systemctl daemon-reload
inside systemctl restart flaskpaste.socket
healthy 5

# ---- a wrong setting and a request: it stays down, says why once, and comes back with its doors ----
inside sh -c 'cp /etc/flaskpaste/env /root/env && echo FLASKPASTE_TYPO=1 >>/etc/flaskpaste/env'
inside systemctl stop flaskpaste.service 2>/dev/null # its door stays open: the request starts it
for _ in 1 2 3; do api -m 2 -o /dev/null $url/health 2>/dev/null || true; done
sleep 1
told=$(journal | grep -c FLASKPASTE_TYPO) || true
[ "$told" = 1 ] || fail "the wrong setting was told $told times"
journal -p err | grep -q FLASKPASTE_TYPO || fail "the wrong setting has no priority"
state_now="$(property ExecMainStatus) $(property ActiveState) $(inside systemctl is-active flaskpaste.socket || true)"
[ "$state_now" = "78 failed inactive" ] || fail "it does not stay down: $state_now"
inside mv /root/env /etc/flaskpaste/env
inside systemctl start flaskpaste.service || fail "no start with the right settings"
healthy 5
inside systemctl is-active -q flaskpaste.socket || fail "the door stays closed"
echo "systemd-test: priorities, a changed door, a wrong setting hold"

# ---- backup: whole, the newest two, nothing from a damaged copy ----
inside systemctl start flaskpaste-backup.service || fail "no backup"
printf '[Service]\nExecStart=\nExecStart=/usr/local/lib/flaskpaste/backup.sh /var/lib/flaskpaste-backup 2\n' |
	inside sh -c 'mkdir -p /etc/systemd/system/flaskpaste-backup.service.d && cat >/etc/systemd/system/flaskpaste-backup.service.d/test.conf'
inside systemctl daemon-reload
for _ in 1 2; do sleep 1 && inside systemctl start flaskpaste-backup.service || fail "no second backup"; done
backups=$(inside sh -c 'ls /var/lib/private/flaskpaste-backup')
[ "$(wc -l <<<"$backups")" = 2 ] || fail "kept: $backups"
backup=/var/lib/private/flaskpaste-backup/$(tail -n 1 <<<"$backups")
inside sh -c 'mkdir /root/shim /root/damaged && cat >/root/shim/flaskpaste && chmod +x /root/shim/flaskpaste' <<-'EOF'
	#!/bin/sh
	# The real program, but what backup wrote loses a page in its middle.
	/usr/local/bin/flaskpaste "$@" || exit
	[ "$1" != backup ] || dd if=/dev/urandom of="$2" bs=8192 seek=2 count=1 conv=notrunc status=none
EOF
if inside env PATH=/root/shim:/usr/bin:/bin STATE_DIRECTORY=$state /usr/local/lib/flaskpaste/backup.sh /root/damaged >/dev/null 2>&1; then fail "a damaged copy counts as a backup"; fi
[ -z "$(inside ls -A /root/damaged)" ] || fail "a damaged copy stays"
after=$(api -T - $url/ <<<"after the backup")
echo "systemd-test: backups hold: checked, the newest kept, a damaged copy refused"

# ---- under load: three loops of parallel posts, each on a connection of its own ----
inside sh -c 'cat >/root/load.sh' <<-'EOF'
	# prints the link or the failure of every post until /root/stop exists
	until [ -e /root/stop ]; do
		curl -sS --no-progress-meter -Z --parallel-immediate --parallel-max 4 -m 40 -H 'Connection: close' -H 'Accept: text/plain' -d load -w '%{http_code}\n' 'http://127.0.0.1:5000/#[1-40]' 2>&1
	done
EOF
load() {
	inside rm -f /root/stop
	for n in 1 2 3; do inside sh /root/load.sh >"$work/load.$n" & done
}
# unload ends the load and counts: sent, and lost (no answer at all, or one that is no 201).
unload() {
	inside touch /root/stop
	for job in $(jobs -p); do [ "$job" = "$nspawn" ] || wait "$job" || true; done
	grep -hoE '^http://.*/raw' "$work"/load.? >"$work/links" || true
	sent=$(grep -hcE '^[0-9]{3}$' "$work"/load.? | paste -sd+ | bc)
	lost=$(grep -hE '^[0-9]{3}$' "$work"/load.? | grep -vc '^201$' || true)
}
# everyone asks for all that was acknowledged.
everyone() {
	sed 's/^/url = /' "$work/links" | inside curl -sS --no-progress-meter -Z -K - -w '%{http_code}\n' | grep -E '^(load)?[0-9]{3}$' | grep -vcE '^(load)?200$' >"$work/missing" || true
	[ "$(cat "$work/missing")" = 0 ] || fail "$(cat "$work/missing") of $(wc -l <"$work/links") acknowledged pastes are gone after $1"
}

load
head -c 900000 /dev/urandom >"$work/slow"
inside curl -sS -m 60 --limit-rate 200k -o /dev/null -w '%{http_code}' -T - $url/ <"$work/slow" >"$work/slow.code" &
sleep 1
for _ in 1 2 3 4 5; do
	inside systemctl restart flaskpaste.service || fail "a restart failed"
	sleep 0.7
done
unload
[ "$lost" = 0 ] || { grep -hvE '^(http|201)' "$work"/load.? | sort | uniq -c; fail "$lost of $sent requests were lost over 5 restarts"; }
[ "$sent" -gt 200 ] || fail "only $sent requests: no load"
[ "$(cat "$work/slow.code")" = 201 ] || fail "the upload under way at the restart got $(cat "$work/slow.code")"
everyone "5 restarts"
echo "systemd-test: 5 restarts under load: $sent requests, none lost; the upload under way was answered"

load
sleep 0.5
before=$(property MainPID)
for _ in 1 2 3; do
	inside systemctl kill -s HUP flaskpaste.service || fail "no signal"
	sleep 0.3
done
unload
[ "$lost" = 0 ] && [ "$before" = "$(property MainPID)" ] && [ "$(property StatusText)" = serving ] || fail "$lost of $sent requests were lost over 3 SIGHUPs"
echo "systemd-test: 3 SIGHUPs under load: $sent requests, none lost"

load
sleep 0.5
killed=0
for _ in 1 2 3 4 5; do
	for _ in $(seq 100); do # between two lives there is nothing to kill
		main=$(property MainPID)
		[ "$main" = 0 ] || [ "$main" = "$killed" ] || break
		sleep 0.2
	done
	inside systemctl kill -s KILL flaskpaste.service || true
	killed=$main
	sleep 0.9
done
unload
healthy 10
[ "$(property NRestarts)" -ge 5 ] || fail "only $(property NRestarts) restarts after 5 kills"
everyone "5 kill -9"
echo "systemd-test: 5 kill -9 under load: $sent requests, $lost cut in flight, every one of $(wc -l <"$work/links") acknowledged pastes is there"

# ---- the watchdog: a writer that does not answer gets the process killed; an idle one does not ----
# Its 30 s would make a slow test, and 4 s under load a server killed for a disk that stops for a moment: so they are for here alone.
inside mkdir -p /run/systemd/system/flaskpaste.service.d
printf '[Service]\nWatchdogSec=4\n' | inside sh -c 'cat >/run/systemd/system/flaskpaste.service.d/test.conf'
inside systemctl daemon-reload
inside systemctl restart flaskpaste.service
timeouts() { inside journalctl -q -u flaskpaste.service | grep -c 'Watchdog timeout' || true; }
for _ in 1 2 3; do # a machine that stops for 4 s makes an idle server late too, but not three times
	before=$(property MainPID)
	sleep 6
	[ "$before" != "$(property MainPID)" ] || break
done
[ "$before" = "$(property MainPID)" ] || fail "an idle server was killed"
counted=$(timeouts)
{
	printf '.timeout 5000\nBEGIN IMMEDIATE;\n'
	sleep 1
	api -m 20 -o /dev/null -d 'a writer with nothing to do does not hang' $url/ >/dev/null 2>&1 &
	for _ in $(seq 60); do # at most 30 s
		sleep 0.5
		[ "$(timeouts)" = "$counted" ] || break
	done
} | inside sqlite3 $state/flaskpaste.db
[ "$(timeouts)" -gt "$counted" ] || fail "a writer that hangs is not noticed"
healthy 10
[ "$before" != "$(property MainPID)" ] || fail "the watchdog did not restart the server"
[ "$(api "$first")" = "before everything" ] || fail "a paste is gone after the watchdog"
echo "systemd-test: the watchdog ended a server whose writer hung, and left an idle one alone"

# ---- reboot ----
inside systemctl reboot || true # it may be ended by what it asks for
status=0; wait "$nspawn" || status=$?
[ "$status" = 133 ] || fail "the reboot ended with $status" # what nspawn says when the machine in it wants to start again
boot || fail "no second boot"
healthy 10
[ "$(api "$first")" = "before everything" ] || fail "a paste is gone after the reboot"
[ "$(as_alice -o /dev/null -w '%{http_code}' $url/pastes)" = 200 ] || fail "a certificate is not taken after the reboot"
inside systemctl is-active -q flaskpaste-backup.timer || fail "the timer is not active after the reboot"
echo "systemd-test: all is back after a reboot"

# ---- a new CA under a new password: certificates go on, since a row decides and not a signature ----
authority() { api $url/pki | grep -oE '"fingerprint_sha256": ?"[0-9a-f]{64}"'; }
before=$(authority)
inside systemctl stop flaskpaste.socket flaskpaste.service
inside sqlite3 $state/flaskpaste.db 'DELETE FROM authority'
inside sh -c 'echo another-password-for-the-ca >/etc/credstore/flaskpaste.pki_ca_password'
admin pki init >/dev/null 2>&1 || fail "no new CA"
inside systemctl start flaskpaste.socket flaskpaste.service || fail "no start with the new CA"
[ "$(authority)" != "$before" ] || fail "the CA is the old one"
[ "$(as_alice -o /dev/null -w '%{http_code}' $url/pastes)" = 200 ] || fail "a certificate does not outlive its CA"
echo "systemd-test: a new CA under a new password; certificates go on"

# ---- restore: what came after the backup is gone, a revocation too, until it is made again ----
serial=$(admin pki list | awk '/alice/ && !n++ {print $1}')
admin pki revoke "$serial" >/dev/null || fail "no revocation of $serial"
[ "$(as_alice -o /dev/null -w '%{http_code}' $url/pastes)" = 403 ] || fail "a revoked certificate is taken"
inside systemctl stop flaskpaste.socket flaskpaste.service
inside sh -c "rm -f $state/flaskpaste.db-wal $state/flaskpaste.db-shm && cp $backup $state/flaskpaste.db && chown --reference=$state $state/flaskpaste.db"
inside sh -c 'echo correct-horse-battery >/etc/credstore/flaskpaste.pki_ca_password' # the backup is older than the new CA
inside systemctl start flaskpaste.socket flaskpaste.service || fail "no start after the restore"
[ "$(api "$first")" = "before everything" ] || fail "the backup lacks a paste"
[ "$(api -o /dev/null -w '%{http_code}' "$after")" = 404 ] || fail "the restore brought what the backup can't have"
admin pki revoke "$serial" >/dev/null || fail "no second revocation of $serial"
[ "$(as_alice -o /dev/null -w '%{http_code}' $url/pastes)" = 403 ] || fail "a certificate that was revoked again is taken"
echo "systemd-test: restored from a backup; a revocation since then is made again"
inside systemctl stop flaskpaste.socket flaskpaste.service
[ "$(property Result)" = success ] && [ "$(property ExecMainStatus)" = 0 ] || fail "the stop ended with $(property Result), $(property ExecMainStatus)"
echo "systemd-test: all held"
