package apiserver

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/selvage-net/selvage/subnet"
)

const minimal = `
current-context: a
contexts: [{name: a, context: {cluster: c, user: u}}]
clusters: [{name: c, cluster: {server: "https://10.0.0.1:6443"}}]
users: [{name: u, user: {token: secret}}]
`

func TestKubeconfig(t *testing.T) {
	t.Parallel()
	c, err := parseKubeconfig([]byte(`
apiVersion: v1
kind: Config
preferences: {}
extensions: [{name: x, extension: {a: 1}}]
current-context: second
contexts:
- {name: first, context: {cluster: one, user: alice}}
- {name: second, context: {cluster: two, user: bob, namespace: x}}
clusters:
- {name: one, cluster: {server: "https://1.1.1.1"}}
- name: two
  cluster:
    server: https://api.example.org:6443/prefix
    certificate-authority: ca.pem
    certificate-authority-data: aGVsbG8=
    tls-server-name: kubernetes
    proxy-url: socks5://127.0.0.1:1080
    disable-compression: true
users:
- {name: alice, user: {exec: {command: aws}}}
- name: bob
  user: {client-certificate: c.pem, client-key: k.pem, client-certificate-data: YQ==, client-key-data: Yg==, token: t, tokenFile: f}
`))
	if err != nil {
		t.Fatal(err)
	}
	if c.server != "https://api.example.org:6443/prefix" || c.serverName != "kubernetes" || c.proxy.String() != "socks5://127.0.0.1:1080" ||
		c.caFile != "ca.pem" || string(c.caData) != "hello" || c.insecure {
		t.Errorf("%+v", c)
	}
	if u := c.user; u.certFile != "c.pem" || u.keyFile != "k.pem" || string(u.certData) != "a" || string(u.keyData) != "b" || u.token != "t" || u.tokenFile != "f" {
		t.Errorf("%+v", u)
	}
	replaced := func(old, by string) string { return strings.Replace(minimal, old, by, 1) }
	for _, c := range []struct{ name, text, want string }{
		{"minimal", minimal, ""},
		{"JSON", `{"current-context":"a","contexts":[{"name":"a","context":{"cluster":"c"}}],"clusters":[{"name":"c","cluster":{"server":"https://x"}}]}`, ""},
		{"no YAML", "a: b\n\tb: c", "not a kubeconfig in YAML or JSON (line 2)"},
		{"an alias", "token: *secret", "not a kubeconfig"},
		{"base64", replaced(`{token: secret}`, `{client-key-data: "***"}`), "not a kubeconfig"},
		{"empty", "", "current-context is not set"},
		{"no context", replaced("current-context: a", "current-context: b"), `there is no context "b"`},
		{"no cluster", replaced("cluster: c,", "cluster: d,"), `there is no cluster "d"`},
		{"no user", replaced("user: u}", "user: v}"), `there is no user "v"`},
		{"exec", replaced("{token: secret}", "{exec: {command: aws}}"), `user "u" has an exec plugin, which is not supported: use a token, a tokenFile, or a client certificate`},
		{"auth-provider", replaced("{token: secret}", "{auth-provider: {name: oidc}}"), "has an auth-provider"},
		{"password", replaced("{token: secret}", "{username: a, password: b}"), "has a user name and password"},
		{"impersonation", replaced("{token: secret}", "{token: secret, as: b}"), "has impersonation (as)"},
		{"half a certificate", replaced("{token: secret}", "{client-certificate: a}"), "want both client-certificate and client-key"},
		{"proxy", replaced(`6443"}`, `6443", proxy-url: "ftp://a"}`), "proxy-url is no URL of scheme http, https or socks5"},
		{"insecure, with authority", replaced(`6443"}`, `6443", insecure-skip-tls-verify: true, certificate-authority: a}`), "has both insecure-skip-tls-verify and"},
	} {
		_, err := parseKubeconfig([]byte(c.text))
		if (err == nil) != (c.want == "") || err != nil && (!strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
}

func TestOptions(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca := newAuthority(t, dir, "ca")
	authority := string(must[[]byte](t)(os.ReadFile(ca.File)))
	account := filepath.Join(dir, "account")
	write(t, filepath.Join(account, "token"), "in-cluster\n")
	write(t, filepath.Join(account, "ca.crt"), authority)
	empty := filepath.Join(dir, "empty")
	write(t, filepath.Join(empty, "token"), "\n")
	write(t, filepath.Join(empty, "ca.crt"), authority)
	broken := filepath.Join(dir, "broken")
	write(t, filepath.Join(broken, "token"), "t")
	write(t, filepath.Join(broken, "ca.crt"), "nothing")
	none := filepath.Join(dir, "none")
	pod := func(name string) (string, bool) {
		v, ok := map[string]string{"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}[name]
		return v, ok
	}
	noPod := func(string) (string, bool) { return "", false }
	// Relative names are below the file's directory.
	relative := write(t, filepath.Join(dir, "relative"), strings.Replace(strings.Replace(minimal, "{token: secret}", "{tokenFile: account/token}", 1),
		`6443"}`, `6443", certificate-authority: ca.pem}`, 1))
	plain := write(t, filepath.Join(dir, "plain"), minimal)
	clear := write(t, filepath.Join(dir, "clear"), strings.Replace(minimal, "https", "http", 1))
	absent := write(t, filepath.Join(dir, "absent"), strings.Replace(minimal, "{token: secret}", "{tokenFile: absent-token}", 1))
	for _, c := range []struct {
		name  string
		o     Options
		url   string
		token string
		want  string // of the error
	}{
		{"pod", Options{ServiceAccount: account, Lookup: pod}, "https://[fd00::1]:443", "in-cluster", ""},
		{"pod, URL", Options{ServiceAccount: account, Lookup: pod, URL: "https://10.0.0.9:6443/"}, "https://10.0.0.9:6443", "in-cluster", ""},
		{"URL", Options{ServiceAccount: none, Lookup: noPod, URL: "10.0.0.9:6443"}, "https://10.0.0.9:6443", "", ""},
		{"kubeconfig", Options{Kubeconfig: plain, ServiceAccount: account, Lookup: pod}, "https://10.0.0.1:6443", "secret", ""},
		{"kubeconfig, URL", Options{Kubeconfig: plain, URL: "https://x/p"}, "https://x/p", "secret", ""},
		{"relative", Options{Kubeconfig: relative}, "https://10.0.0.1:6443", "in-cluster", ""},
		{"nothing secret in the clear", Options{Kubeconfig: clear}, "http://10.0.0.1:6443", "", ""},
		{"no pod", Options{ServiceAccount: account, Lookup: noPod}, "", "", "no API server is given, and this is no pod"},
		{"no token", Options{ServiceAccount: none, Lookup: pod}, "", "", none + "/ca.crt"},
		{"empty token", Options{ServiceAccount: empty, Lookup: pod}, "", "", empty + "/token: want one token"},
		{"no authority", Options{ServiceAccount: broken, Lookup: pod}, "", "", broken + "/ca.crt: holds no PEM certificate"},
		{"no file", Options{Kubeconfig: none}, "", "", none},
		{"no token file", Options{Kubeconfig: absent}, "", "", dir + "/absent-token"},
		{"scheme", Options{URL: "ftp://x", ServiceAccount: none}, "", "", `scheme "ftp" is neither https nor http`},
		{"no host", Options{URL: "https://:6443", ServiceAccount: none}, "", "", "has no host"},
		{"query", Options{URL: "https://x/?a", ServiceAccount: none}, "", "", "has a query"},
		{"user", Options{URL: "https://a:secret@x", ServiceAccount: none}, "", "", "has a user in its URL"},
		{"no URL", Options{URL: "https://%zz:secret", ServiceAccount: none}, "", "", "cannot be parsed"},
		{"timeout", Options{URL: "https://x", ServiceAccount: none, RequestTimeout: -1}, "", "", "want more than 0"},
	} {
		got, err := New(c.o)
		switch {
		case (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want):
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		case err == nil && (got.Access().Endpoints[0] != c.url || got.vault.get().token != c.token):
			t.Errorf("%s: %v with token %q", c.name, got.Access(), got.vault.get().token)
		}
	}
	c := open(t, Options{ServiceAccount: account, Lookup: pod})
	if got := c.Access(); got.Kind != subnet.StoreKubernetes || got.CAFile != account+"/ca.crt" || got.CertFile != "" || got.KeyFile != "" {
		t.Errorf("%+v", got)
	}
}
