// Package migration takes a lab from a real flannel to selvage, node by node, and one node back, as Documentation/migration.md says. Pods
// talk all the while, and no datagram of theirs may be lost.
//
//	bin/flanneld   built from the module that the folder flannel pins
//
// It is a module of its own, since flannel is nothing that make test should have to build.
package migration
