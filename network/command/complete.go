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

// completionPatience is how long a shell may wait for what the daemon knows.
const completionPatience = time.Second

// CompleteFlag has a shell offer some words for the value of a flag.
func CompleteFlag(c *cobra.Command, flag string, words ...string) {
	_ = c.RegisterFlagCompletionFunc(flag, cobra.FixedCompletions(words, cobra.ShellCompDirectiveNoFileComp)) // fails for a flag that there is not
}

// completePeers offers what of names each peer that the daemon knows of, with a description behind it. Without a daemon there is
// nothing to offer.
func completePeers(of func(status.Peer) (words []string)) cobra.CompletionFunc {
	return func(c *cobra.Command, args []string, _ string) (words []cobra.Completion, _ cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveNoFileComp
		}
		socket, err := c.Flags().GetString("socket")
		if err != nil {
			socket = status.DefaultSocket
		}
		ctx, cancel := context.WithTimeout(context.Background(), completionPatience)
		defer cancel()
		peers, _ := status.NewClient(socket).Peers(ctx)
		for _, p := range peers {
			if p.State == status.Quarantined {
				continue // what it says of itself is not to be trusted
			}
			for _, word := range of(p) {
				words = append(words, cobra.CompletionWithDesc(word, strings.TrimSpace(p.Node+" "+join(p.Subnets))))
			}
		}
		return words, cobra.ShellCompDirectiveNoFileComp
	}
}

// nameOf is what a peer goes by in doctor --peer.
func nameOf(p status.Peer) []string {
	if p.Node == "" {
		return []string{p.Key}
	}
	return []string{p.Node}
}

// subnetsOf are the subnets of a peer.
func subnetsOf(p status.Peer) (words []string) {
	for _, s := range p.Subnets {
		words = append(words, s.String())
	}
	return words
}

// addressesOf are the first addresses in a peer's subnets, which its pods' bridge has.
func addressesOf(p status.Peer) (words []string) {
	for _, s := range p.Subnets {
		words = append(words, subnet.Gateway(s).Addr().String())
	}
	return words
}

// completeChecks offers the checks of doctor, also behind a comma.
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
