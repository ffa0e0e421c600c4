package k8slab

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// user is one that the apiserver knows by a token.
type user struct{ name, group string }

// users are who talks to the apiserver. What they may do, Kubernetes knows by itself.
func users(nodes []string) []user {
	list := []user{
		{"admin", "system:masters"},
		{"system:kube-controller-manager", ""}, {"system:kube-scheduler", ""}, {"system:kube-proxy", ""},
	}
	for _, n := range nodes {
		list = append(list, user{"system:node:" + n, "system:nodes"})
	}
	return list
}

// writeTokens writes the file that the apiserver knows users by (kube-apiserver --token-auth-file), and returns each one's.
func writeTokens(file string, users []user) (map[string]string, error) {
	tokens := map[string]string{}
	var text strings.Builder
	for _, u := range users {
		tokens[u.name] = rand.Text()
		fmt.Fprintf(&text, "%s,%s,%s,%q\n", tokens[u.name], u.name, u.name, u.group)
	}
	return tokens, os.WriteFile(file, []byte(text.String()), 0o600)
}

// writeKey writes the key that the tokens of service accounts are signed with.
func writeKey(file string) error {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return err
	}
	return os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)}), 0o600)
}

// kubeconfig says where the apiserver is, who it is, and who oneself is. It is JSON, which is YAML too.
func kubeconfig(server string, authority []byte, token string) ([]byte, error) {
	type object = map[string]any
	const name = "lab"
	return json.Marshal(object{
		"apiVersion": "v1", "kind": "Config", "current-context": name,
		"clusters": []object{{"name": name, "cluster": object{"server": server, "certificate-authority-data": authority}}},
		"users":    []object{{"name": name, "user": object{"token": token}}},
		"contexts": []object{{"name": name, "context": object{"cluster": name, "user": name}}},
	})
}

// writeKubeconfig writes one where the calling thread is.
func (c *Cluster) writeKubeconfig(file, user string) error {
	data, err := kubeconfig(c.server, c.authority, c.tokens[user])
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o600)
}
