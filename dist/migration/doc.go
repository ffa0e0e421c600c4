// Package migration takes a lab from a real flannel to selvage, node by node, and one node back, as
// Documentation/migration.md says. Pods talk all the while, and no datagram of theirs may be lost. The leases are in etcd;
// with kube-flannel, see Migration in dist/k8slab.
//
//	bin/flanneld          built from the module that the folder flannel pins
//	bin/flannel/flannel   its CNI plugin, from the one that the folder plugin pins: each of the two plugins detaches
//	                      the pods that the other one has attached
//
// It is a module of its own, since flannel is nothing that make test should have to build.
package migration
