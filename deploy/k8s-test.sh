#!/bin/bash
# Checks deploy/k8s.yaml without a cluster: decodes it as strictly as the API server's own types allow, asks the API server's own
# code whether the pod is "restricted", and compares settings, ports and paths with the program and the Containerfile.
#   deploy/k8s-test.sh [BINARY]     BINARY: of this source, for the names of the settings
# The checker is a module of its own outside the repository, built once into $XDG_CACHE_HOME.
# Exit 0: it holds, or the checker can't be built for lack of a network (one line says so). Exit 1: something is wrong.
set -euo pipefail
cd "$(dirname "$0")/.."
version=v0.34.1
cache=${XDG_CACHE_HOME:-$HOME/.cache}/flaskpaste-deploy/k8s-$version
binary=${1:-}
if [ -z "$binary" ]; then
	binary=$(mktemp)
	trap 'rm -f "$binary"' EXIT
	CGO_ENABLED=0 go build -o "$binary" .
fi
mkdir -p "$cache"
cat >"$cache/main.go.new" <<'EOF'
// check reads manifests: every document must be of a known kind without an unknown or repeated member, and pods restricted.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/pod-security-admission/api"
	"k8s.io/pod-security-admission/policy"
)

func main() {
	if err := check(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "k8s-test: FAILED:", err)
		os.Exit(1)
	}
}

// check reads the manifests at path; settings is what serve --help prints.
func check(path, settings string) error {
	scheme := runtime.NewScheme()
	if err := errors.Join(corev1.AddToScheme(scheme), appsv1.AddToScheme(scheme), networkingv1.AddToScheme(scheme)); err != nil {
		return err
	}
	decoder := serializer.NewCodecFactory(scheme, serializer.EnableStrict).UniversalDeserializer()
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	kinds := map[string]int{}
	var set *appsv1.StatefulSet
	var service *corev1.Service
	var network *networkingv1.NetworkPolicy
	for r := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(raw))); ; {
		doc := make([]byte, len(raw))
		n, err := r.Read(doc)
		if err == io.EOF {
			break
		}
		if err != nil {
			return err
		}
		object, kind, err := decoder.Decode(doc[:n], nil, nil)
		if err != nil {
			return err
		}
		kinds[kind.Kind]++
		switch o := object.(type) {
		case *appsv1.StatefulSet:
			set = o
		case *corev1.Service:
			service = o
		case *networkingv1.NetworkPolicy:
			network = o
		case *corev1.Namespace:
			if o.Labels["pod-security.kubernetes.io/enforce"] != "restricted" {
				return errors.New("the namespace does not enforce restricted")
			}
		}
	}
	for _, kind := range []string{"Namespace", "ServiceAccount", "StatefulSet", "Service", "NetworkPolicy"} {
		if kinds[kind] != 1 {
			return fmt.Errorf("%d of %s", kinds[kind], kind)
		}
	}
	pod := &set.Spec.Template
	evaluator, err := policy.NewEvaluator(policy.DefaultChecks())
	if err != nil {
		return err
	}
	level := api.LevelVersion{Level: api.LevelRestricted, Version: api.LatestVersion()}
	for _, result := range evaluator.EvaluatePod(level, &pod.ObjectMeta, &pod.Spec) {
		if !result.Allowed {
			return fmt.Errorf("the pod is not restricted: %s: %s", result.ForbiddenReason, result.ForbiddenDetail)
		}
	}
	c := pod.Spec.Containers[0]
	for _, e := range c.Env {
		name := strings.TrimSuffix(e.Name, "_FILE")
		if strings.HasPrefix(name, "FLASKPASTE_") && !regexp.MustCompile(`(?m)^ *`+name+`\b`).MatchString(settings) {
			return fmt.Errorf("the program knows no setting %s", e.Name)
		}
	}
	switch {
	case len(pod.Spec.Containers) != 1 || *set.Spec.Replicas != 1:
		return errors.New("not one pod of one container")
	case len(service.Spec.Ports) != 1 || service.Spec.Ports[0].NodePort != 30500 || service.Spec.Type != corev1.ServiceTypeNodePort:
		return errors.New("the service is not node port 30500")
	case service.Spec.Ports[0].TargetPort.StrVal != c.Ports[0].Name || c.Ports[0].ContainerPort != 5000:
		return errors.New("the service leads elsewhere")
	case service.Spec.Selector["app"] != pod.Labels["app"] || set.Spec.Selector.MatchLabels["app"] != pod.Labels["app"] || network.Spec.PodSelector.MatchLabels["app"] != pod.Labels["app"]:
		return errors.New("a selector does not match the pod")
	case len(network.Spec.PolicyTypes) != 2 || len(network.Spec.Egress) != 0 || len(network.Spec.Ingress) != 1 || network.Spec.Ingress[0].Ports[0].Port.IntVal != 5000:
		return errors.New("the network policy is not: one port in, nothing out")
	case !*c.SecurityContext.ReadOnlyRootFilesystem || *pod.Spec.SecurityContext.RunAsUser != 65532:
		return errors.New("the root can be written to, or the user is not the image's")
	case c.Resources.Limits.Memory().IsZero() || c.Resources.Limits.Cpu().IsZero() || c.Resources.Requests.Memory().IsZero():
		return errors.New("no limits")
	case pod.Annotations["prometheus.io/scrape"] != "true" || pod.Annotations["prometheus.io/port"] != "5000" || pod.Annotations["prometheus.io/path"] != "/metrics":
		return errors.New("no annotations for Prometheus")
	case pod.Spec.AutomountServiceAccountToken == nil || *pod.Spec.AutomountServiceAccountToken:
		return errors.New("the pod gets a token for the API")
	}
	for name, probe := range map[string]*corev1.Probe{"startup": c.StartupProbe, "readiness": c.ReadinessProbe, "liveness": c.LivenessProbe} {
		if probe == nil || probe.HTTPGet == nil || probe.HTTPGet.Path != "/health" || probe.HTTPGet.Port.StrVal != c.Ports[0].Name {
			return fmt.Errorf("the %s probe is not /health", name)
		}
	}
	if !bytes.Contains(raw, []byte("secretName: flaskpaste,")) || c.VolumeMounts[0].MountPath != "/data" {
		return errors.New("no secret, or no volume at /data")
	}
	return nil
}
EOF
if ! cmp -s "$cache/main.go.new" "$cache/main.go" || [ ! -x "$cache/check" ]; then
	cp "$cache/main.go.new" "$cache/main.go"
	printf 'module check\n\ngo 1.25\n\nrequire (\n\tk8s.io/api %s\n\tk8s.io/apimachinery %s\n\tk8s.io/pod-security-admission %s\n)\n' $version $version $version >"$cache/go.mod"
	build() { (cd "$cache" && GOFLAGS=-mod=mod GOWORK=off nice -n 10 go mod tidy && GOWORK=off CGO_ENABLED=0 nice -n 10 go build -o check .) >"$cache/log" 2>&1; }
	build || { sleep 5 && build; } || { sleep 20 && build; } || { # a network has its moments
		grep -qE 'dial tcp|lookup |no such host|connection refused|i/o timeout|module lookup disabled' "$cache/log" || { cat "$cache/log"; exit 1; }
		echo "k8s-test: skipped: the checker can't be built without a network"
		exit 0
	}
fi
"$cache/check" deploy/k8s.yaml "$(env -i "$binary" serve --help)"
# What the checker refuses, so that its yes means something.
for spoil in 's/allowPrivilegeEscalation: false/allowPrivilegeEscalation: true/' 's/replicas: 1/replica: 1/' 's/runAsNonRoot: true//' 's/FLASKPASTE_METRICS_ALLOW/FLASKPASTE_METRIC_ALLOW/' 's/nodePort: 30500/nodePort: 30501/'; do
	sed "$spoil" deploy/k8s.yaml >"$cache/spoiled.yaml"
	if "$cache/check" "$cache/spoiled.yaml" "$(env -i "$binary" serve --help)" 2>/dev/null; then echo "k8s-test: FAILED: passes after $spoil"; exit 1; fi
done
echo "k8s-test: k8s.yaml holds: strict types of k8s.io/api $version, restricted, settings known to the program"
