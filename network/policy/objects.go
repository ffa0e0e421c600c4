package policy

// Objects takes namespaces, pods and policies as they are, in any order: a [Compiler], or what stands before it. To set
// an object that is known changes it; to delete one that is not known does nothing.
type Objects interface {
	SetNamespace(Namespace)
	DeleteNamespace(name string)
	SetPod(Pod)
	DeletePod(uid string)
	SetPolicy(Policy)
	DeletePolicy(namespace, name string)
	SetClusterPolicy(ClusterPolicy)
	DeleteClusterPolicy(name string)
}

var _ Objects = (*Compiler)(nil)
