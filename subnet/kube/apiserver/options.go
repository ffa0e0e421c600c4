package apiserver

import (
	"time"

	"github.com/sirupsen/logrus"
)

// ServiceAccount is the directory in which a pod finds its service account's token and ca.crt.
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// Options say where the API server is and how to speak to it. With neither URL nor Kubeconfig, it is that of the pod's
// service account.
type Options struct {
	// URL of the server, such as "https://10.0.0.1:6443". It takes precedence over the one in Kubeconfig. Without
	// Kubeconfig, requests carry no credentials.
	URL string
	// Kubeconfig is the name of a file that names server and credentials. Commands and plugins that provide
	// credentials (exec, auth-provider) are not supported.
	Kubeconfig string
	// ServiceAccount is the directory of the pod's service account; empty: [ServiceAccount].
	ServiceAccount string
	// Lookup reads the environment (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT); nil: os.LookupEnv.
	Lookup func(name string) (string, bool)

	// Annotations are the names of those that [Object] keeps.
	Annotations []string
	// UserAgent of all requests, such as "selvaged/1.2".
	UserAgent string
	// RequestTimeout bounds one request that is no watch; 0: 30 s. A list is bounded by each of its answers' progress.
	RequestTimeout time.Duration
	// Log gets what a person would act on; nil: nothing is logged.
	Log logrus.FieldLogger
}
