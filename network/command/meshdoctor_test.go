package command

import (
	"context"
	"os/exec"
	"strings"
	"testing"
)

// TestExamination: what doctor prints is taken in, whether it has found something or not, and why it has failed.
func TestExamination(t *testing.T) {
	const report = `{"at":"2026-01-02T03:04:05Z","findings":[{"check":"cni","level":"failure","evidence":"no plugin","advice":"install it"},` +
		`{"check":"kernel","level":"pass","evidence":"fine"},{"check":"filter","level":"warning","evidence":"a rule"},{"check":"routes","level":"pass"}]}`
	for _, tt := range []struct{ name, script, want string }{
		{"it finds something", "echo '" + report + "'; exit 2", ""},
		{"it only warns", "echo '" + report + "'; exit 3", ""},
		{"all is well", "echo '" + report + "'", ""},
		{"it fails", "echo 'connect: permission denied' >&2; exit 1", "permission denied"},
		{"it prints something else", "echo nonsense", "invalid character"},
		{"it prints too much", "yes '" + report + "' | head -c 1000000", "invalid character"},
		{"it is killed", "kill -9 $$", "killed"},
	} {
		got, err := examination(exec.CommandContext(t.Context(), "sh", "-c", tt.script))
		if tt.want != "" {
			if err == nil || !strings.Contains(err.Error(), tt.want) || len(err.Error()) > 1000 {
				t.Errorf("%s: %+v, %v", tt.name, got, err)
			}
			continue
		}
		if err != nil || got.Passed != 2 || len(got.Findings) != 2 || got.Findings[0].Evidence != "no plugin" || got.Findings[0].Advice != "install it" ||
			got.Findings[0].Level != "failure" || got.Findings[1].Check != "filter" || got.At.Year() != 2026 {
			t.Errorf("%s: %+v, %v", tt.name, got, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := examination(exec.CommandContext(ended, "sh", "-c", "sleep 100")); err == nil {
		t.Error("it goes on when the daemon ends")
	}
}
