// Package chart renders the Helm chart in the folder selvage, as `helm template` does and by Helm's own library, and checks
// what comes out against the types of Kubernetes' API. The plain manifest, dist/kubernetes/selvage.yaml, is the chart
// rendered with the values in plain.yaml, so the two cannot drift apart; `go generate` writes it.
//
// It is a module of its own, since Helm and Kubernetes' API are far larger than all the rest.
package chart

//go:generate go run ./cmd/manifest
