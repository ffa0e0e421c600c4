// Package apiserver is a client of the Kubernetes API server, with no more than selvage needs of it: lists, watches and
// single objects of which a few fields are decoded from protobuf, a patch of a Node's status, and questions about the
// node's own rights.
//
// What is large in the API is the list of Nodes: 12.8 kB a Node with 50 images. Its metadata alone is 2.5 kB, and that
// is what [Client.List] and [Client.Watch] ask for. Lists are decoded as they arrive, one object at a time, so that
// memory does not grow with their size.
//
// Content types and field numbers are those of generated.proto in k8s.io/api and k8s.io/apimachinery; they are part of
// the stable API. An answer is external input: lengths are checked, sizes are bounded, and an object that is too large
// or malformed is passed on with the reason in [Object.Bad], under its name.
package apiserver
