package command

import (
	"context"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/selvage-net/selvage/network/doctor"
	"github.com/selvage-net/selvage/network/node/status"
	"github.com/selvage-net/selvage/subnet"
)

// completionTimeout is how long a shell waits for the daemon.
const completionTimeout = time.Second

// CompleteFlag makes the shell offer words for the value of a flag.
func CompleteFlag(c *cobra.Command, flag string, words ...string) {
	// It fails only for an undefined flag.
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp))
}

// completePeers offers words for each peer that the daemon knows, with a description. Without a running daemon it
// offers nothing.
func completePeers(of func(status.Peer) (words []string)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) (words []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		socket, err := c.Flags().GetString("socket")
		if err != nil {
			socket = status.DefaultSocket
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionTimeout)
		defer cancel()
		peers, _ := status.NewClient(socket).Peers(ctx)
		for _, p := range peers {
			if p.State == status.Quarantined {
				continue // the data of a rejected lease is not trusted
			}
			for _, word := range of(p) {
				words = append(words, cobra.CompletionWithDesc(word, strings.TrimSpace(p.Node+" "+join(p.Subnets))))
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// nameOf returns the name of a peer for doctor --peer.
func nameOf(p status.Peer) []string {
	if p.Node == "" {
		return []string{p.Key}
	}
	return []string{p.Node}
}

// subnetsOf returns the subnets of a peer.
func subnetsOf(p status.Peer) (words []string) {
	for _, s := range p.Subnets {
		words = append(words, s.String())
	}
	return words
}

// namesAndAddressesOf returns a peer's name, and the first address of each of its subnets: that of its pods' bridge.
func namesAndAddressesOf(p status.Peer) (words []string) {
	if p.Node != "" {
		words = append(words, p.Node)
	}
	for _, s := range p.Subnets {
		words = append(words, subnet.Gateway(s).Addr().String())
	}
	return words
}

// completeChecks offers the checks of doctor, also after a comma.
func completeChecks(_ *cobra.Command, _ []string, begun string) (words []cobra.Completion, _ cobra.ShellCompDirective) {
	before := ""
	if i := strings.LastIndexByte(begun, ','); i >= 0 {
		before = begun[:i+1]
	}
	for _, name := range doctor.Checks() {
		words = append(words, before+name)
	}
	return words, cobra.ShellCompDirectiveNoFileComp
}
