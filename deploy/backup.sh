#!/bin/sh
# Makes one backup of a running FlaskPaste, checks that it is whole, and keeps the newest ones.
#   backup.sh FOLDER [KEEP]     KEEP: how many backups stay, 14 by default
# The database is the one of FLASKPASTE_DATABASE, or $STATE_DIRECTORY's. Nothing old goes before the new one has been
# checked, and the new one never goes. What goes is older by the file's own age; one whose name or age is of the future
# says that the clock is wrong, now or then: the run ends with a line and exit 1, and all stay.
set -eu
umask 077
folder=$1 keep=${2:-14}
case $keep in *[!0-9]* | '' | 0) echo "backup: KEEP is $keep, not a number of 1 or more" >&2; exit 2 ;; esac
rm -rf "$folder"/.new.* # of a run that was killed
new=$(mktemp -d "$folder/.new.XXXXXX")
trap 'rm -rf "$new"' EXIT

flaskpaste backup "$new/flaskpaste.db"
# Alone, without this server's settings: what check finds is about the copy. Certificates that end soon are no damage.
env -i FLASKPASTE_DATABASE="$new/flaskpaste.db" FLASKPASTE_MIN_FREE=0 "$(command -v flaskpaste)" check \
	>"$new/found" 2>"$new/errors" || true
if [ ! -s "$new/found" ] || grep -qvE '^(all is well$|the CA |the certificate of the admin )' "$new/found"; then
	echo "backup: the copy is damaged:" >&2
	cat "$new/found" "$new/errors" >&2
	exit 1
fi
name=$folder/flaskpaste-$(date -u +%Y%m%dT%H%M%SZ).db
[ ! -e "$name" ] || { echo "backup: $name exists" >&2; exit 1; }
mv "$new/flaskpaste.db" "$name"
sync "$name" "$folder"

# The names sort by time.
for ahead in "$folder"/flaskpaste-????????T??????Z.db; do :; done
[ "$ahead" != "$name" ] || ahead=$(find "$folder" -maxdepth 1 -name 'flaskpaste-*Z.db' -newer "$name" | head -n 1)
if [ -n "$ahead" ]; then
	echo "backup: $name is made, but $ahead is of the future, so nothing was removed: set the clock, or remove that file" >&2
	exit 1
fi
stat -c '%Y %n' "$folder"/flaskpaste-????????T??????Z.db | sort -k 1,1nr -k 2r | tail -n +$((keep + 1)) |
	while read -r _ old; do
		[ "$old" = "$name" ] || rm -f -- "$old"
	done
set -- "$folder"/flaskpaste-????????T??????Z.db
echo "backup: $name, $(stat -c %s "$name") bytes, checked; $# kept"
