// Package kubetest is a stand-in for the Kubernetes API server, for tests: it runs in the process, starts at once, and
// fails on demand. It serves lists, watches and single objects of any resource, in JSON and in protobuf (of Nodes and
// Pods; of others the metadata), patches, and reviews of a user's own rights.
//
// It behaves like a real kube-apiserver, and the tests of subnet/kube/apiserver run against both (make test-kube). It
// does not validate objects beyond what selvage relies on, has one user, and no admission.
//
//	server.go   listening, users, routing
//	control.go  what a test does to the server: rejections, other users, older states
//	store.go    the objects and their history
//	serve.go    single objects: read, create, patch, delete; reviews of rights
//	list.go     lists, in pages; watch.go watches
//	patch.go    the strategic merge patch
//	object.go   objects in JSON; wire.go in protobuf
//	admin.go    a client that changes objects, of the stand-in or of a real server
package kubetest
