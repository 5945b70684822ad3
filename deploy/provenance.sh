#!/bin/bash
# Writes the provenance of a release: an in-toto statement with SLSA v1 predicate that binds the checksums of SHA256SUMS, and the
# image's digest if there is one, to the commit, the toolchain and the run that made them.
#   deploy/provenance.sh SHA256SUMS [NAME@sha256:DIGEST] >provenance.json
# From the environment, as Gitea's runner sets it: GITHUB_SERVER_URL GITHUB_REPOSITORY GITHUB_SHA GITHUB_REF GITHUB_WORKFLOW
# GITHUB_RUN_ID GITHUB_RUN_ATTEMPT. It is signed with ssh-keygen -Y, see .gitea/workflows/release.yml.
set -euo pipefail
: "${GITHUB_SERVER_URL:?}" "${GITHUB_REPOSITORY:?}" "${GITHUB_SHA:?}" "${GITHUB_REF:?}" "${GITHUB_WORKFLOW:?}" "${GITHUB_RUN_ID:?}" "${GITHUB_RUN_ATTEMPT:?}"
image=${2:-}
source=$GITHUB_SERVER_URL/$GITHUB_REPOSITORY
jq -n --rawfile sums "$1" --arg image "$image" --arg source "$source" --arg go "$(go env GOVERSION)" '
{
	_type: "https://in-toto.io/Statement/v1",
	subject: ([$sums | split("\n")[] | select(. != "") | split("  ") | {name: .[1], digest: {sha256: .[0]}}]
		+ (if $image == "" then [] else [$image | split("@sha256:") | {name: .[0], digest: {sha256: .[1]}}] end)),
	predicateType: "https://slsa.dev/provenance/v1",
	predicate: {
		buildDefinition: {
			buildType: ($source + "/src/branch/main/deploy/release.sh"),
			externalParameters: {repository: $source, ref: env.GITHUB_REF, workflow: env.GITHUB_WORKFLOW},
			resolvedDependencies: [
				{uri: ("git+" + $source + "@" + env.GITHUB_REF), digest: {gitCommit: env.GITHUB_SHA}},
				{uri: "https://go.dev/dl/", name: $go}
			]
		},
		runDetails: {
			builder: {id: ($source + "/actions")},
			metadata: {invocationId: ($source + "/actions/runs/" + env.GITHUB_RUN_ID + "/attempts/" + env.GITHUB_RUN_ATTEMPT)}
		}
	}
}'
