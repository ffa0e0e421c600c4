// Package image makes OCI images from files, without a container engine, and the same bytes each time: no clock, no owner,
// no order of a directory goes into them. What it is built on is the library of crane and ko.
//
// The image of selvage is made by cmd/image. It is from scratch: static binaries and nothing else, no shell, no libc, no
// iptables. The Dockerfile beside this is the other way, for nodes that want the rules set by iptables.
//
// It is a module of its own, so that the product's go.mod lists only what the product needs.
package image
