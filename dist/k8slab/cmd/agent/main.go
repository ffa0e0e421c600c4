// Command agent is what runs in the pods of the lab, see package agent. It takes no arguments.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/selvage-net/selvage/network/connectivity/agent"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := agent.Serve(ctx, agent.Addresses{Echo: fmt.Sprintf(":%d", agent.EchoPort), Control: fmt.Sprintf(":%d", agent.ControlPort)})
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "agent: %v\n", err)
		os.Exit(1)
	}
}
