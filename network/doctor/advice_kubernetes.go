package doctor

import (
	"cmp"
	"fmt"

	"github.com/selvage-net/selvage/network/node/status"
)

// kubernetesCommands formats advice about a store on the Kubernetes API. kubectl is run with the rights of an operator:
// the daemon's own are not enough, so its credentials are no part of the commands.
type kubernetesCommands struct {
	access  status.StoreAccess
	network string // the overlay's, such as "10.244.0.0/16"
	peers   int
}

// kubernetes returns commands for the daemon's API server.
func (f Facts) kubernetes() (c kubernetesCommands) {
	if f.Status != nil && f.Status.Store.Access != nil {
		c.access = *f.Status.Store.Access
	}
	c.network = "NETWORK"
	if all := f.networks(); len(all) > 0 {
		c.network = all[0].String()
	}
	c.peers = len(f.Peers)
	return c
}

func (c kubernetesCommands) show(p status.Peer) string {
	return "kubectl get node " + shellQuote(p.Key) + " -o yaml"
}

func (c kubernetesCommands) remove(p status.Peer) string {
	return "kubectl delete node " + shellQuote(p.Key)
}

func (c kubernetesCommands) releaseLease(p status.Peer) string { return c.remove(p) }

func (c kubernetesCommands) releaseAny() (string, any) { return "kubectl delete node ", peerKey{} }

func (c kubernetesCommands) moves(node string) string {
	return "give " + node + " another podCIDR: delete its Node and restart its kubelet, which registers it again"
}

func (c kubernetesCommands) noLease() string {
	return "kubectl get node " + c.node() + " -o yaml shows its podCIDRs and annotations"
}

func (c kubernetesCommands) node() string { return shellQuote(cmp.Or(c.access.Node, "NODE")) }

func (c kubernetesCommands) config() string {
	return cmp.Or(c.access.Config, "/etc/kube-flannel/net-conf.json")
}

func (c kubernetesCommands) configPlace() string { return c.config() + ", which is in a ConfigMap" }

func (c kubernetesCommands) writeConfig() string {
	return "check that the ConfigMap with net-conf.json is mounted at " + c.config() +
		` and has {"Network":"10.244.0.0/16","Backend":{"Type":"vxlan"}}, with the network of your cluster`
}

func (c kubernetesCommands) replaceConfig() string {
	return "selvaged config check " + shellQuote(c.config()) +
		" says what is wrong; correct the ConfigMap that it is in"
}

// notAllocated returns what to do about a node that has no podCIDR.
func (c kubernetesCommands) notAllocated() string {
	const show = "kubectl get nodes -o custom-columns=NAME:.metadata.name,PODCIDRS:.spec.podCIDRs shows all; "
	if c.peers == 0 {
		return show + "if none has one, start kube-controller-manager with --allocate-node-cidrs=true --cluster-cidr=" +
			c.network
	}
	return show + "other nodes have theirs: see the log of kube-controller-manager; --cluster-cidr may be used up"
}

// outside returns what to do about a node whose podCIDR is none of the network's.
func (c kubernetesCommands) outside() string {
	return fmt.Sprintf("make Network in %s the --cluster-cidr of kube-controller-manager; the podCIDR of a Node "+
		"cannot be changed: to get another one, delete the Node and restart its kubelet", c.config())
}

// annotate returns what to do about an annotation of this node that cannot be used.
func (c kubernetesCommands) annotate() string {
	return "kubectl annotate node " + c.node() + " --overwrite ANNOTATION=VALUE corrects it; ANNOTATION- removes it"
}
