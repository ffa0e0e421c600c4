package vm

// KernelModules are the modules of the virtual machine, as patterns for [Modules]. The kernel cannot load others: there is
// no modprobe.
func KernelModules() []string {
	return []string{
		"veth", "bridge", "br_netfilter", "vxlan", "wireguard", "tun", "dummy", "macvlan", "vrf", "8021q", "bonding", "overlay",
		"sctp", "sctp_diag", "tcp_diag", "udp_diag", "sch_netem", "sch_ingress", "sch_tbf", "sch_htb", "cls_bpf", "act_mirred",
		"nf_tables", "nft_*", "nf_conntrack", "nf_conntrack_netlink", "nf_conntrack_bridge", "nf_nat", "nfnetlink_queue",
		"nfnetlink_log", "nf_log_syslog", "nft_meta_bridge", "nft_reject_bridge",
		"ip_tables", "ip6_tables", "iptable_*", "ip6table_*", "ipt_REJECT", "ip6t_REJECT", "x_tables",
		"xt_addrtype", "xt_comment", "xt_conntrack", "xt_mark", "xt_connmark", "xt_multiport", "xt_nat", "xt_MASQUERADE",
		"xt_REDIRECT", "xt_tcpudp", "xt_statistic", "xt_physdev", "xt_limit", "xt_LOG", "xt_NFLOG", "xt_state", "xt_recent",
		"xt_length",
	}
}

// Programs are those of the machine that selvage and the tests call.
func Programs() []string {
	return []string{
		"sh", "cat", "sleep", "true", "false", "ip", "tc", "bridge", "nft", "wg",
		"iptables", "iptables-save", "iptables-restore", "ip6tables", "ip6tables-save", "ip6tables-restore",
		"iptables-nft", "iptables-nft-save", "iptables-nft-restore",
		"ip6tables-nft", "ip6tables-nft-save", "ip6tables-nft-restore",
		"iptables-legacy", "iptables-legacy-save", "iptables-legacy-restore",
		"ip6tables-legacy", "ip6tables-legacy-save", "ip6tables-legacy-restore",
	}
}

// renames is why tests do not run that rename a device which is up.
const renames = "it renames a device that is up, which this kernel refuses"

// Suites returns all that runs in the virtual machine, in its order.
func Suites() []Suite {
	return []Suite{
		{
			Name: "cases", Dir: "dist/vm/cases",
			Tests: []string{
				"TestVXLANPair", "TestWireGuardPair", "TestFlannelNewKey", "TestVRFUplink", "TestPolicySCTP",
				"TestFlannelTakeover", "TestVLANUplink", "TestThroughput", "TestBadUplink", "TestBondUplink",
				"TestFlannelMixed", "TestManyPeers", "TestFlannelRestart", "TestFlannelMove",
			},
			Short: []string{"TestVXLANPair", "TestWireGuardPair", "TestFlannelNewKey"},
			Long:  []string{"TestManyPeers"},
		},
		{
			Name: "wireguard", Dir: "dist/wireguard", Env: []string{"WIREGUARD=kernel"},
			Tests: []string{
				"TestIPv4", "TestIPv6", "TestDualSeparate", "TestDualOneDevice", "TestNoWireGuard", "TestRepair", "TestRestart",
				"TestKubernetes", "TestTakeover", "TestFollow", "TestMoved", "TestMove",
				"TestNoPlaintext", "TestRotate",
				"TestMoveWaits", "TestMoveOneWay", "TestEncryptionRequired",
			},
			Long: []string{"TestMoveWaits", "TestMoveOneWay", "TestEncryptionRequired", "TestRotate"},
		},
		{
			Name: "kernel", Dir: "network/kernel",
			Without: map[string]string{
				"TestForeignCostsNothing":   renames,
				"TestForeignRoutesAreKnown": renames,
			},
		},
		{Name: "e2e", Dir: "dist/e2e", Tests: []string{"TestRestartChangesNothing"}},
	}
}
