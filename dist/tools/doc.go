// Package tools pins what development needs and the product does not: etcd, the reference CNI plugins, linters. It is a
// module of its own, so that the product's go.mod lists only what the product needs. `make tools` builds them into bin/.
package tools
