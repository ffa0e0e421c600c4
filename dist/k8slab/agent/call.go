package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// patience is how long an answer to a call is waited for.
const patience = 2 * time.Second

// requestTime is how long a request may take on the control port, far more than it does on a busy machine.
const requestTime = time.Minute

func call(ctx context.Context, c Call) (Echo, error) {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	network := c.Network
	if network == "connect" {
		network = "tcp"
	}
	conn, err := new(net.Dialer).DialContext(ctx, network, c.To.String())
	if err != nil {
		return Echo{}, err
	}
	defer conn.Close()
	if c.Network == "connect" {
		return Echo{}, nil
	}
	return Ask(conn, c.Network)
}

// Ask asks an agent over a connection to its echo port.
func Ask(conn net.Conn, network string) (Echo, error) {
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		return Echo{}, err
	}
	if network == "tcp" {
		text, err := io.ReadAll(conn)
		if err != nil {
			return Echo{}, err
		}
		return parseEcho(string(text))
	}
	packet := make([]byte, 256)
	if _, err := conn.Write(packet[:numberSize]); err != nil {
		return Echo{}, err
	}
	n, err := conn.Read(packet)
	if err != nil {
		return Echo{}, err
	}
	return parseEcho(string(packet[min(n, numberSize):n]))
}

// Do has an agent do something, over a connection to its control port.
func Do(conn net.Conn, r Request) (a Answer, err error) {
	if err := conn.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return a, err
	}
	if err := json.NewEncoder(conn).Encode(r); err != nil {
		return a, fmt.Errorf("ask an agent: %w", err)
	}
	if err := json.NewDecoder(conn).Decode(&a); err != nil {
		return a, fmt.Errorf("ask an agent: %w", err)
	}
	if a.Error != "" {
		return a, errors.New(a.Error)
	}
	return a, nil
}
