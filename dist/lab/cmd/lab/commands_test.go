package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// TestExitCode: the exit code of a program that the user starts is the command's, and the program has printed why it
// failed. One that a command of the lab needs is an error like any other.
func TestExitCode(t *testing.T) {
	failed := fmt.Errorf("node1: iptables: %w", exec.Command("sh", "-c", "exit 5").Run())
	killed := fmt.Errorf("node1: iptables: %w", exec.Command("sh", "-c", "kill -9 $$").Run())
	for _, tt := range []struct {
		args    []string
		err     error
		code    int
		printed string
	}{
		{[]string{"exec", "node1", "false"}, nil, 0, ""},
		{[]string{"exec", "node1", "false"}, failed, 5, ""},
		{[]string{"exec", "node1", "false"}, killed, 128 + 9, ""},
		{[]string{"status"}, failed, 5, ""},
		{[]string{"statsu"}, unknownCommand{"statsu", []string{"status"}}, 2,
			"lab: there is no command \"statsu\": did you mean status?\n"},
		{[]string{"fault", "node1", "rules-flush"}, failed, 1, "lab: node1: iptables: exit status 5\n"},
		{[]string{"fault", "node1", "rules-flush"}, killed, 1, "lab: node1: iptables: signal: killed\n"},
	} {
		path := filepath.Join(t.TempDir(), "stderr")
		stderr, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		code := exitCode(tt.args, tt.err, stdio{err: stderr})
		stderr.Close()
		if printed, err := os.ReadFile(path); err != nil || code != tt.code || string(printed) != tt.printed {
			t.Errorf("%q with %v: code %d, printed %q, %v; want %d, %q", tt.args, tt.err, code, printed, err, tt.code, tt.printed)
		}
	}
}
