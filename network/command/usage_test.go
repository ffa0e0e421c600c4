package command

import (
	"io"
	"testing"

	"github.com/spf13/cobra"
)

func TestExplainUsage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"peesr"}, `unknown command "peesr": did you mean peers? (see selvaged --help)`},
		{[]string{"expl"}, `unknown command "expl": did you mean explain? (see selvaged --help)`},
		{[]string{"something"}, `unknown command "something" (see selvaged --help)`},
		{[]string{"explain"}, "ADDRESS|NAME is missing. Usage: selvaged explain ADDRESS|NAME [flags]"},
		{[]string{"explain", "a", "b"}, `unexpected argument "b". Usage: selvaged explain ADDRESS|NAME [flags]`},
		{[]string{"release", "a", "b"}, `unexpected argument "b". Usage: selvaged release [SUBNET] [flags]`},
		{[]string{"peers", "x"}, `unexpected argument "x". Usage: selvaged peers [flags]`},
		{[]string{"peers", "--bda"}, "unknown flag: --bda: did you mean --bad? (see selvaged peers --help)"},
		{[]string{"peers", "--no-such-thing"}, "unknown flag: --no-such-thing (see selvaged peers --help)"},
		{[]string{"peers", "--output"}, "flag needs an argument: --output. Usage: selvaged peers [flags]"},
	} {
		root := &cobra.Command{Use: "selvaged", Args: cobra.NoArgs, SilenceErrors: true, SilenceUsage: true,
			Run: func(*cobra.Command, []string) {}}
		root.AddCommand(Peers(), Explain(), Release("/nowhere"))
		ExplainUsage(root)
		root.SetArgs(tt.args)
		root.SetOut(io.Discard)
		root.SetErr(io.Discard)
		if err := root.Execute(); err == nil || err.Error() != tt.want {
			t.Errorf("%q: %v\nwant %s", tt.args, err, tt.want)
		}
	}
}
