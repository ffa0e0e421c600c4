package k8slab

import (
	"context"
	"errors"
	"net/netip"
	"runtime"

	"github.com/selvage-net/selvage/dist/image"
	"github.com/selvage-net/selvage/subnet"
)

// dnsImage is the name of the image with CoreDNS.
const dnsImage = "localhost/coredns:devel"

// dnsAddr is the cluster IP of the DNS server: the tenth of the services' network, as kubeadm has it.
func dnsAddr(families []subnet.Family) netip.Addr {
	a := netip.MustParsePrefix(serviceNetworks()[families[0]]).Addr()
	for range 10 {
		a = a.Next()
	}
	return a
}

// dnsManifest is CoreDNS with the least rights that it needs, and the Service by which all distributions name it.
const dnsManifest = `apiVersion: v1
kind: ServiceAccount
metadata: {name: coredns, namespace: kube-system}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: coredns}
rules:
- {apiGroups: [""], resources: [services, pods, namespaces], verbs: [list, watch]}
- {apiGroups: [discovery.k8s.io], resources: [endpointslices], verbs: [list, watch]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: coredns}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: coredns}
subjects:
- {kind: ServiceAccount, name: coredns, namespace: kube-system}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: coredns, namespace: kube-system}
data:
  Corefile: |
    .:53 {
      errors
      ready
      kubernetes cluster.local in-addr.arpa ip6.arpa
    }
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: coredns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  replicas: 2
  selector: {matchLabels: {k8s-app: kube-dns}}
  template:
    metadata: {labels: {k8s-app: kube-dns}}
    spec:
      serviceAccountName: coredns
      dnsPolicy: Default
      terminationGracePeriodSeconds: 1
      topologySpreadConstraints:
      - {maxSkew: 1, topologyKey: kubernetes.io/hostname, whenUnsatisfiable: ScheduleAnyway,
         labelSelector: {matchLabels: {k8s-app: kube-dns}}}
      containers:
      - name: coredns
        image: ` + dnsImage + `
        imagePullPolicy: Never
        args: [-conf, /etc/coredns/Corefile]
        volumeMounts: [{name: config, mountPath: /etc/coredns}]
        readinessProbe: {httpGet: {path: /ready, port: 8181}, periodSeconds: 1}
      volumes: [{name: config, configMap: {name: coredns}}]
---
apiVersion: v1
kind: Service
metadata: {name: kube-dns, namespace: kube-system, labels: {k8s-app: kube-dns}}
spec:
  selector: {k8s-app: kube-dns}
  clusterIP: "`

const dnsPorts = `"
  ports:
  - {name: dns, port: 53, protocol: UDP}
  - {name: dns-tcp, port: 53, protocol: TCP}
`

// withDNS runs a step while CoreDNS answers the pods.
func withDNS(step func(context.Context, *suite) ([]string, error)) func(context.Context, *suite) ([]string, error) {
	return func(ctx context.Context, s *suite) (found []string, err error) {
		archive, err := s.pack("coredns", dnsImage, image.Spec{
			OS: runtime.GOOS, Arch: runtime.GOARCH, Command: []string{"/coredns"},
			Files: []image.File{{Path: "/coredns", From: s.command("coredns")}},
		})
		if err != nil {
			return nil, err
		}
		for _, n := range s.nodes {
			if err := n.Runtime.Import(ctx, archive); err != nil {
				return nil, err
			}
		}
		manifest := dnsManifest + dnsAddr(s.families()).String() + dnsPorts
		if err := s.apply(ctx, manifest); err != nil {
			return nil, err
		}
		if err = s.rollout(ctx, "kube-system", "deployment/coredns"); err == nil {
			found, err = step(ctx, s)
		}
		_, removed := s.kubectlWith(context.WithoutCancel(ctx), manifest, "delete", "-f", "-", "--wait", timeout())
		return found, errors.Join(err, removed)
	}
}
