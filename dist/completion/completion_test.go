package completion

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What each shell runs: $1 is the line that has been typed. It prints what there is to choose from, or the line as it then is.
const (
	inBash = `. /usr/share/bash-completion/bash_completion
. <(selvaged completion bash)
COMP_LINE=$1 COMP_POINT=${#1} COMP_TYPE=9
read -ra COMP_WORDS <<<"$1"
COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
__start_selvaged 2>/dev/null # it is not the shell that calls it, which it says
printf '%s\n' "${COMPREPLY[@]}"`

	inFish = `selvaged completion fish | source
complete -C $argv[1]`

	// zsh completes in its line editor only, and that on a terminal only.
	inZsh = `zmodload zsh/zpty
zpty editor 'TERM=dumb zsh -f -i'
zpty -w editor 'PS1=; autoload -U compinit; compinit -u -D; source <(selvaged completion zsh); print ready-$((1+1))'
zpty -r editor out '*ready-2*'
zpty -w -n editor "$1"$'\t'
zpty -r editor out "*$2*"
print -r -- "$out"
zpty -d editor`
)

// TestShells types what begins as a command line of selvaged's.
func TestShells(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	for line, want := range map[string]string{
		"selvaged sta":                      "status",
		"selvaged status --wat":             "--watch",
		"selvaged status -o j":              "json",
		"selvaged doctor --check rou":       "route", // routes, and router-advertisement
		"selvaged doctor --check peers,nei": "peers,neighbours",
		"selvaged --log-level war":          "warning",
		"selvaged --vxlan-tx-checksum au":   "auto",
		"selvaged completion zs":            "zsh",
		"selvaged policy te":                "test",
		"selvaged policy test -o ju":        "junit",
	} {
		for _, argv := range [][]string{
			{"bash", "--norc", "--noprofile", "-c", inBash, "bash", line},
			{"fish", "--no-config", "-c", inFish, line},
			{"zsh", "-f", "-c", inZsh, "zsh", line, want},
		} {
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			out, err := exec.CommandContext(ctx, argv[0], argv[1:]...).Output()
			cancel()
			text := strings.ReplaceAll(string(out), `\,`, ",") // as bash quotes it, though it need not
			if err != nil || !strings.Contains(text, want) {
				t.Errorf("%s, %q: %v, %q, want %s", argv[0], line, err, out, want)
			}
		}
	}
}

// TestNothingToOffer: where no daemon runs, nothing is offered for another node's name, not even files.
func TestNothingToOffer(t *testing.T) {
	bin, err := filepath.Abs("../../bin")
	if err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	line := fmt.Sprintf("selvaged doctor --socket %s/none --peer ", t.TempDir())
	out, err := exec.CommandContext(t.Context(), "fish", "--no-config", "-c", inFish, line).Output()
	if err != nil || len(out) > 0 {
		t.Errorf("%v, %q is offered", err, out)
	}
}
