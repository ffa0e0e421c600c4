package subnet

// StoreKind names a kind of store.
type StoreKind string

// The kinds of stores.
const (
	StoreEtcd       StoreKind = "etcd"
	StoreKubernetes StoreKind = "kubernetes"
)

// StoreWords are the words by which texts for people name a store and what is in it: logs, the status, the doctor.
// Programs compare kinds.
type StoreWords struct {
	Label  string // at the start of a line, at most nine characters
	Topic  string // of a problem
	Name   string // in a sentence
	Record string // a lease's, as the store has it
	// NoConfig says what to do if there is no network config.
	NoConfig string
	// NeverExpires is what a lease without expiry is.
	NeverExpires string
}

// Words returns the words for a kind of store; for an unknown one, such as a test's, neutral ones.
func (k StoreKind) Words() StoreWords {
	switch k {
	case StoreEtcd:
		return StoreWords{
			Label: "etcd", Topic: "etcd", Name: "etcd", Record: "key",
			NoConfig:     `Write one, such as {"Network": "10.5.0.0/16"}, to <etcd-prefix>/config`,
			NeverExpires: "reservation, never expires",
		}
	case StoreKubernetes:
		return StoreWords{
			Label: "apiserver", Topic: "API server", Name: "the API server", Record: "Node",
			NoConfig: `Write one, such as {"Network": "10.244.0.0/16"}, to the file of --net-config-path, ` +
				"which is in the manifest's ConfigMap",
			NeverExpires: "for as long as its Node exists",
		}
	}
	return StoreWords{
		Label: "store", Topic: "store", Name: "the lease store", Record: "record",
		NoConfig: `Write one, such as {"Network": "10.5.0.0/16"}`, NeverExpires: "never expires",
	}
}

// KindOf returns the kind of a store that is an [AccessReporter]; empty for others.
func KindOf(s Store) StoreKind {
	if a, ok := s.(AccessReporter); ok {
		return a.Access().Kind
	}
	return ""
}
