#!/bin/sh
# Makes one backup of a running FlaskPaste, checks that it is whole, and keeps the newest ones.
#   backup.sh FOLDER [KEEP]     KEEP: how many backups stay, 14 by default
# The database is the one of FLASKPASTE_DATABASE, or $STATE_DIRECTORY's. Nothing old goes before the new one has been checked.
set -eu
umask 077
folder=$1 keep=${2:-14}
case $keep in *[!0-9]* | '' | 0) echo "backup: KEEP is $keep, not a number of 1 or more" >&2; exit 2 ;; esac
rm -rf "$folder"/.new.* # of a run that was killed
new=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT

flaskpaste backup "$new/flaskpaste.db"
# Alone, without this server's settings: what check finds is about the copy. Certificates that end soon are no damage.
env -i FLASKPASTE_DATABASE="$new/flaskpaste.db" FLASKPASTE_MIN_FREE=0 "$(command -v flaskpaste)" check >"$new/found" 2>"$new/errors" || true
if [ ! -s "$new/found" ] || grep -qvE '^(all is well$|the CA |the certificate of the admin )' "$new/found"; then
	echo "backup: the copy is damaged:" >&2
	cat "$new/found" "$new/errors" >&2
	exit 1
fi
name=$folder/flaskpaste-$(date -u +%Y%m%dT%H%M%SZ).db
[ ! -e "$name" ] || { echo "backup: $name exists" >&2; exit 1; }
mv "$new/flaskpaste.db" "$name"
sync "$name" "$folder"
# The names sort by time: all but the last KEEP go, unless a clock was wrong.
set -- "$folder"/flaskpaste-????????T??????Z.db
for last; do :; done
[ "$last" = "$name" ] || {
	echo "backup: $name is made and nothing removed: $last is newer. Is the clock right? If it is, remove the newer ones" >&2
	exit 1
}
while [ $# -gt "$keep" ]; do
	rm -f -- "$1"
	shift
done
echo "backup: $name, $(stat -c %s "$name") bytes, checked; $# kept"
