module github.com/selvage-net/selvage/dist/k8slab/sctp

go 1.24.0
