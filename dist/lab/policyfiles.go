package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/selvage-net/selvage/subnet"
)

// PolicyDir is a directory from which daemons take namespaces, pods and policies: for the flag --policy-dir.
type PolicyDir string

// Write replaces the file of that name as a whole, so that no daemon reads a part of it.
func (d PolicyDir) Write(name, yaml string) error {
	path := filepath.Join(string(d), name+".yaml")
	return errors.Join(os.WriteFile(path+".new", []byte(yaml), 0o644), os.Rename(path+".new", path))
}

// PodYAML is a pod of the namespace default as the API has it. It has the addresses of the endpoint, or none if that is
// nil: the plugin waits for the rules of a pod, so a pod has to be known before it has an address, as in Kubernetes.
func PodYAML(name, app, node string, at *Endpoint) string {
	var ips []string
	if at != nil {
		for _, f := range subnet.Families() {
			ips = append(ips, fmt.Sprintf("{ip: %q}", at.Addr(f)))
		}
	}
	return fmt.Sprintf("---\napiVersion: v1\nkind: Pod\n"+
		"metadata: {name: %s, namespace: default, uid: %s, labels: {app: %s}}\n"+
		"spec: {nodeName: %s}\nstatus: {podIPs: [%s]}\n", name, name, app, node, strings.Join(ips, ", "))
}
