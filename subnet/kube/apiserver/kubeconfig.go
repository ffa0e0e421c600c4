package apiserver

import (
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"slices"

	"sigs.k8s.io/yaml"
)

// maxFile is the largest file with credentials that is read, in bytes.
const maxFile = 4 << 20

// config says how a server is reached. Of a file and its data, the data takes precedence, as with kubectl.
type config struct {
	server     string   // as configured
	url        *url.URL // the same, parsed
	proxy      *url.URL // nil: that of the environment
	insecure   bool     // the server's certificate is not checked
	serverName string   // that the certificate has to be for; empty: the URL's host
	caFile     string
	caData     []byte
	user       user
}

// user says what we show to the server.
type user struct {
	token, tokenFile  string // of both, the file takes precedence
	certFile, keyFile string
	certData, keyData []byte
}

// kubeconfig is the part that is used of k8s.io/client-go/tools/clientcmd/api/v1, Config.
type kubeconfig struct {
	CurrentContext string      `json:"current-context"`
	Contexts       []kubeEntry `json:"contexts"`
	Clusters       []kubeEntry `json:"clusters"`
	Users          []kubeEntry `json:"users"`
}

// kubeEntry is one entry of any of the lists.
type kubeEntry struct {
	Name    string      `json:"name"`
	Context kubeContext `json:"context"`
	Cluster kubeServer  `json:"cluster"`
	User    kubeUser    `json:"user"`
}

type kubeContext struct {
	Cluster string `json:"cluster"`
	User    string `json:"user"`
}

type kubeServer struct {
	Server        string `json:"server"`
	TLSServerName string `json:"tls-server-name"`
	Insecure      bool   `json:"insecure-skip-tls-verify"`
	CAFile        string `json:"certificate-authority"`
	CAData        []byte `json:"certificate-authority-data"`
	ProxyURL      string `json:"proxy-url"`
}

type kubeUser struct {
	CertFile  string `json:"client-certificate"`
	CertData  []byte `json:"client-certificate-data"`
	KeyFile   string `json:"client-key"`
	KeyData   []byte `json:"client-key-data"`
	Token     string `json:"token"`
	TokenFile string `json:"tokenFile"`

	// Not supported.
	Exec         any    `json:"exec"`
	AuthProvider any    `json:"auth-provider"`
	Username     string `json:"username"`
	Password     string `json:"password"`
	Impersonate  string `json:"as"`
}

// readKubeconfig reads the current context of a kubeconfig.
func readKubeconfig(file string) (config, error) {
	data, err := readFile(file)
	if err != nil {
		return config{}, fmt.Errorf("kubeconfig: %w", err)
	}
	c, err := parseKubeconfig(data)
	if err != nil {
		return config{}, fmt.Errorf("kubeconfig %s: %w", file, err)
	}
	for _, name := range []*string{&c.caFile, &c.user.certFile, &c.user.keyFile, &c.user.tokenFile} {
		if *name != "" && !filepath.IsAbs(*name) {
			*name = filepath.Join(filepath.Dir(file), *name)
		}
	}
	return c, nil
}

var lineNumber = regexp.MustCompile(`line \d+`)

func parseKubeconfig(data []byte) (c config, err error) {
	var k kubeconfig
	if err := yaml.Unmarshal(data, &k); err != nil {
		// Of the library's text only the line: the rest can quote the file, which has secrets.
		where := lineNumber.FindString(err.Error())
		if where != "" {
			where = " (" + where + ")"
		}
		return c, fmt.Errorf("not a kubeconfig in YAML or JSON%s: check it with \"kubectl config view\"", where)
	}
	if k.CurrentContext == "" {
		return c, errors.New("current-context is not set: set it to the context that is to be used")
	}
	context, err := find("context", k.Contexts, k.CurrentContext)
	if err != nil {
		return c, err
	}
	cluster, err := find("cluster", k.Clusters, context.Context.Cluster)
	if err != nil {
		return c, err
	}
	var u kubeUser
	if name := context.Context.User; name != "" {
		entry, err := find("user", k.Users, name)
		if err != nil {
			return c, err
		}
		if u = entry.User; u.unsupported() != "" {
			return c, fmt.Errorf("user %q has %s, which is not supported: use a token, a tokenFile, or a client "+
				"certificate, such as those of a service account", name, u.unsupported())
		}
		if (u.CertFile == "" && len(u.CertData) == 0) != (u.KeyFile == "" && len(u.KeyData) == 0) {
			return c, fmt.Errorf("user %q: want both client-certificate and client-key, or neither", name)
		}
	}
	s := cluster.Cluster
	if s.ProxyURL != "" {
		c.proxy, err = url.Parse(s.ProxyURL)
		if err != nil || c.proxy.Host == "" || !slices.Contains([]string{"http", "https", "socks5"}, c.proxy.Scheme) {
			return c, fmt.Errorf("cluster %q: proxy-url is no URL of scheme http, https or socks5", cluster.Name)
		}
	}
	if s.Insecure && (s.CAFile != "" || len(s.CAData) > 0) {
		return c, fmt.Errorf("cluster %q has both insecure-skip-tls-verify and a certificate-authority: remove one",
			cluster.Name)
	}
	c.server, c.insecure, c.serverName, c.caFile, c.caData = s.Server, s.Insecure, s.TLSServerName, s.CAFile, s.CAData
	c.user = user{
		token: u.Token, tokenFile: u.TokenFile,
		certFile: u.CertFile, keyFile: u.KeyFile, certData: u.CertData, keyData: u.KeyData,
	}
	return c, nil
}

// find returns the entry of a name.
func find(what string, list []kubeEntry, name string) (kubeEntry, error) {
	i := slices.IndexFunc(list, func(e kubeEntry) bool { return e.Name == name })
	if i < 0 {
		return kubeEntry{}, fmt.Errorf("there is no %s %q, which is referred to", what, name)
	}
	return list[i], nil
}

// unsupported names what a user has that needs more than a file.
func (u kubeUser) unsupported() string {
	switch {
	case u.Exec != nil:
		return "an exec plugin"
	case u.AuthProvider != nil:
		return "an auth-provider"
	case u.Username != "" || u.Password != "":
		return "a user name and password"
	case u.Impersonate != "":
		return "impersonation (as)"
	}
	return ""
}

// readFile reads a file of bounded size.
func readFile(name string) ([]byte, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err == nil && len(data) > maxFile {
		err = fmt.Errorf("%s has more than %d bytes", name, maxFile)
	}
	return data, err
}
