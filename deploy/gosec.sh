#!/bin/bash
# Runs gosec over the program; whatever it finds beside the list below is a failure. "gosec" from PATH or $GOSEC, else built from its module.
set -euo pipefail
cd "$(dirname "$0")/.."
gosec=${GOSEC:-$(command -v gosec || true)}
run=("$gosec")
[ -n "$gosec" ] || run=(go run github.com/securego/gosec/v2/cmd/gosec@v2.30.0)

# Everywhere: findings that say nothing here.
#   G104  an error is dropped where nothing is left to do with it (closing after a failure, removing a temporary file)
#   G115  integer conversions: each stands behind a check of its range, and the fuzz targets look for the others
#   G304, G703  a path from a variable: the operator's own settings and arguments; no request ever names a file
everywhere=G104,G115,G304,G703
# In one file: read, and right.
rules=(
	'main\.go:G302'      # a Unix socket is for the proxy's group too: 0660
	'main\.go:G704'      # the notification socket comes from systemd's environment
	'pki\.go:G407'       # the nonce is random, read into the slice that is passed
	'pki\.go:G401' 'pki\.go:G505' # SHA-1 names a certificate for clients and proxies of 1.x; it decides nothing alone
	'cli\.go:G101'       # sentences by the server's codes, some of which speak of passwords
	'cli\.go:G204'       # stty, with words of our own
)
joined=$(IFS=';'; echo "${rules[*]}")
"${run[@]}" -quiet -exclude "$everywhere" -exclude-rules "$joined" ./...
echo "gosec: nothing beside the ${#rules[@]} findings that were read and are explained in deploy/gosec.sh"
