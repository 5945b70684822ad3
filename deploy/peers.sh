#!/bin/sh
# FlaskPaste beside others on this machine, as one markdown table: sh deploy/peers.sh
# 4 KiB at 16 connections, all taking turns in one run, medians; about two minutes and 4 GiB of the disk under TMPDIR (no tmpfs:
# durability is the point). What can't be started is left out with one line. As root it installs gunicorn, Flask and bepasty from Debian.
set -eu
cd "$(dirname "$0")/.."
PEERS=${XDG_CACHE_HOME:-$HOME/.cache}/flaskpaste-peers
export PEERS
mkdir -p "$PEERS"
log=$(mktemp)
trap 'rm -f "$log"' EXIT

if ! { command -v gunicorn && command -v bepasty-server; } >/dev/null && [ "$(id -u)" = 0 ]; then
	{ apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gunicorn python3-flask bepasty; } >"$log" 2>&1 ||
		echo "left out: Flask: $(tail -n 1 "$log" | tr -d '\t')" >&2
fi
cat >"$PEERS/bepasty.conf" <<'PYTHON'
import os
SECRET_KEY, DEFAULT_PERMISSIONS, STORAGE_FILESYSTEM_DIRECTORY = "of no use", "create,read", os.environ["HOME"] + "/files"
PYTHON

# What most pastebins in Python are, without their pages: a paste is a row, a 201 is on the disk.
cat >"$PEERS/standin.py" <<'PYTHON'
import os, secrets, sqlite3, threading
from flask import Flask, Response, abort, request

app, local = Flask(__name__), threading.local()

def db():
    if not hasattr(local, "db"):
        local.db = sqlite3.connect(os.environ["DATABASE"], timeout=30, isolation_level=None)
        local.db.execute("PRAGMA journal_mode=WAL")
        local.db.execute("PRAGMA synchronous=FULL")
        local.db.execute("CREATE TABLE IF NOT EXISTS pastes (id TEXT PRIMARY KEY, content BLOB) WITHOUT ROWID")
    return local.db

@app.post("/")
def create():
    id = secrets.token_hex(8)
    db().execute("INSERT INTO pastes VALUES (?, ?)", (id, request.get_data(cache=False)))
    return "/" + id + "\n", 201

@app.get("/<id>")
def read(id):
    row = db().execute("SELECT content FROM pastes WHERE id = ?", (id,)).fetchone() or abort(404)
    return Response(row[0], mimetype="application/octet-stream")
PYTHON

# The ceiling: what net/http itself can do.
cat >"$PEERS/bare.go" <<'GO'
package main

import (
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	body, size := []byte(strings.Repeat("x", 4096)), []string{"4096"}
	http.ListenAndServe(os.Args[1], http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == "POST" {
			io.Copy(io.Discard, r.Body)
			io.WriteString(w, "/x\n")
			return
		}
		w.Header()["Content-Length"] = size
		w.Write(body)
	}))
}
GO
go build -o "$PEERS/bare" "$PEERS/bare.go"
go test -run '^$' -bench '^BenchmarkPeers$' -benchtime 1x -timeout 20m . >"$log" || { cat "$log" >&2; exit 1; }
grep '^left out' "$log" >&2 || true
grep '^|' "$log"
