package apiserver

import (
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sirupsen/logrus"
)

// ServiceAccount is the directory in which a pod finds its service account's token and ca.crt.
const ServiceAccount = "/var/run/secrets/kubernetes.io/serviceaccount"

// DefaultRequestTimeout is that of [Options].
const DefaultRequestTimeout = 30 * time.Second

// Options say where the API server is and how to speak to it. With neither URL nor Kubeconfig, it is that of the pod's
// service account.
type Options struct {
	// URL of the server, such as "https://10.0.0.1:6443". It takes precedence over the one in Kubeconfig. Without
	// Kubeconfig, the credentials are those of the pod's service account, if it has one.
	URL string
	// Kubeconfig is the name of a file that names server and credentials (kubectl's format, YAML or JSON). Commands and
	// plugins that provide credentials (exec, auth-provider) are not supported.
	Kubeconfig string
	// ServiceAccount is the directory of the pod's service account; empty: [ServiceAccount].
	ServiceAccount string
	// Lookup reads the environment (KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT); nil: os.LookupEnv.
	Lookup func(name string) (string, bool)

	// Annotations are the names of those that [Object] keeps.
	Annotations []string
	// UserAgent of all requests, such as "selvaged/1.2"; empty: "selvaged".
	UserAgent string
	// RequestTimeout bounds one request that is no watch, with the times that it is sent again; 0:
	// [DefaultRequestTimeout]. A list may take longer, but no part of its answer may be so late.
	RequestTimeout time.Duration
	// Log gets what a person would act on; nil: nothing is logged.
	Log logrus.FieldLogger

	// For tests, which cannot wait for what a node can.
	watchFor               func() time.Duration // how long a watch lasts
	pingAfter, pingTimeout time.Duration        // see pingAfter
	quiet                  time.Duration        // see followQuiet
}

// withDefaults fills in what was left out.
func (o Options) withDefaults() (Options, error) {
	if o.Log == nil {
		silent := logrus.New()
		silent.SetOutput(io.Discard)
		o.Log = silent
	}
	if o.Lookup == nil {
		o.Lookup = os.LookupEnv
	}
	if o.ServiceAccount == "" {
		o.ServiceAccount = ServiceAccount
	}
	if o.UserAgent == "" {
		o.UserAgent = "selvaged"
	}
	if o.watchFor == nil {
		o.watchFor = watchFor
	}
	if o.quiet == 0 {
		o.quiet = followQuiet
	}
	if o.pingAfter == 0 {
		o.pingAfter, o.pingTimeout = pingAfter, pingTimeout
	}
	switch {
	case o.RequestTimeout < 0:
		return o, fmt.Errorf("API server request timeout is %s, want more than 0", o.RequestTimeout)
	case o.RequestTimeout == 0:
		o.RequestTimeout = DefaultRequestTimeout
	}
	return o, nil
}

// config reads how to reach the server, and where the credentials are.
func (o Options) config() (c config, err error) {
	switch {
	case o.Kubeconfig != "":
		c, err = readKubeconfig(o.Kubeconfig)
	case o.URL != "":
		if _, err := os.Stat(filepath.Join(o.ServiceAccount, "token")); err == nil {
			c = o.serviceAccount()
		}
	default:
		if c, err = o.serviceAccount(), nil; c.server == "" {
			return c, fmt.Errorf("no API server is given, and this is no pod (KUBERNETES_SERVICE_HOST and " +
				"KUBERNETES_SERVICE_PORT are not set): want --kube-api-url, --kubeconfig-file, or both")
		}
	}
	if err != nil {
		return c, err
	}
	from := "kubeconfig " + o.Kubeconfig
	if o.URL != "" {
		c.server, from = o.URL, "API server URL"
	}
	if c.url, err = parseServer(c.server); err != nil {
		return c, fmt.Errorf("%s: server %w", from, err)
	}
	if c.url.Scheme == "http" { // as kubectl: nothing secret in the clear
		c.user = user{}
	}
	return c, nil
}

// serviceAccount is the config of a pod, as the kubelet provides it.
func (o Options) serviceAccount() (c config) {
	host, _ := o.Lookup("KUBERNETES_SERVICE_HOST")
	port, _ := o.Lookup("KUBERNETES_SERVICE_PORT")
	if host != "" && port != "" {
		c.server = "https://" + net.JoinHostPort(host, port)
	}
	c.caFile = filepath.Join(o.ServiceAccount, "ca.crt")
	c.user.tokenFile = filepath.Join(o.ServiceAccount, "token")
	return c
}

// parseServer checks a server's URL. One without a scheme is https.
func parseServer(text string) (*url.URL, error) {
	const want = "want a URL such as https://10.0.0.1:6443"
	if text == "" {
		return nil, fmt.Errorf("is not named: %s", want)
	}
	full := text
	if !strings.Contains(text, "://") {
		full = "https://" + text
	}
	u, err := url.Parse(full)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%q cannot be parsed: %s", text, want)
	case u.User != nil:
		return nil, fmt.Errorf("has a user in its URL: %s", want) // not shown: it may have a password
	case u.Scheme != "https" && u.Scheme != "http":
		return nil, fmt.Errorf("%q: scheme %q is neither https nor http; %s", text, u.Scheme, want)
	case u.Hostname() == "":
		return nil, fmt.Errorf("%q has no host: %s", text, want)
	case u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%q has a query or a fragment: %s", text, want)
	}
	u.Path = strings.TrimRight(u.Path, "/")
	return u, nil
}
