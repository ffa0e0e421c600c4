// Package kubernetes tests the plain manifests beside it, which dist/chart renders, with a real kube-apiserver.
package kubernetes
