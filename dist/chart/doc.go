// Package chart renders the Helm chart in the folder selvage with Helm's library, as `helm template` does, and checks
// the result against the types of the Kubernetes API. `go generate` writes the plain manifests in dist/kubernetes: the chart
// rendered with the values in plain.yaml and plain-etcd.yaml. So the two cannot diverge. It also copies the alert rules
// and the dashboard of dist/prometheus into the chart.
//
// It is a separate module, since Helm and the Kubernetes API are far larger than the rest of the repository.
package chart

//go:generate go run ./cmd/manifest
