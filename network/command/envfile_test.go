package command

import (
	"strings"
	"testing"
)

func TestEnvLines(t *testing.T) {
	text := "# comment\nA=1\n;B=2\n C = 'x y' \nA=\"3 \\\"\\$\\\\\"\nnothing\n=4\nD=\n"
	l := parseEnv(text)
	if l.String() != text || parseEnv("").String() != "" {
		t.Errorf("read and written again: %q", l)
	}
	for name, want := range map[string]string{"A": `3 "$\`, "B": "-", "C": "x y", "D": "", "E": "-", "nothing": "-", "": "-"} {
		got, ok := l.lookup(name)
		if !ok {
			got = "-"
		}
		if got != want {
			t.Errorf("%s is %q, want %q", name, got, want)
		}
	}
	for _, value := range []string{"", "plain", "http://10.0.0.1:2379,http://10.0.0.2:2379", `a "b" $c \d`, "`x` # ;", "'"} {
		for _, name := range []string{"A", "C", "new"} {
			changed, err := l.with(name, value)
			if err != nil {
				t.Fatal(err)
			}
			if got, _ := parseEnv(changed.String()).lookup(name); got != value {
				t.Errorf("%s=%q is read as %q in\n%s", name, value, got, changed)
			}
			if n := strings.Count("\n"+changed.String(), "\n"+name+"="); n != 1 {
				t.Errorf("%s is set %d times in\n%s", name, n, changed)
			}
			if name != "C" && !strings.Contains(changed.String(), "# comment\n") || !strings.Contains(changed.String(), ";B=2\n") {
				t.Errorf("a comment is lost in\n%s", changed)
			}
		}
	}
	if l.String() != text {
		t.Errorf("a change of a copy changed %q", l)
	}
	if _, err := l.with("A", "x\ny"); err == nil {
		t.Error("took a value with a line break")
	}
}
