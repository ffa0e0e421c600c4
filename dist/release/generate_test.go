package release

import (
	"regexp"
	"strings"
	"testing"
)

// TestGenerate compares the man pages with the help that they are made from.
func TestGenerate(t *testing.T) {
	files, err := generated()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range files {
		if !strings.HasSuffix(name, ".8") {
			if !strings.Contains(string(f.Data), "selvaged") {
				t.Errorf("%s is no completion of selvaged:\n%s", name, f.Data)
			}
			continue
		}
		page := string(f.Data)
		title := strings.ReplaceAll(strings.TrimSuffix(name, ".8"), "-", `\-`)
		if !strings.HasPrefix(page, ".TH "+strings.ToUpper(title)+" 8 2026-01-02 ") ||
			!strings.Contains(page, "\n.SH NAME\n"+title+` \- `) {
			t.Errorf("%s has another title:\n%s", name, page)
		}
		hyphenated := strings.NewReplacer("install-cni", "install_cni", "connectivity-test", "connectivity_test",
			"rotate-key", "rotate_key")
		args := strings.Split(strings.TrimSuffix(hyphenated.Replace(name), ".8"), "-")[1:]
		for i := range args {
			args[i] = strings.ReplaceAll(args[i], "_", "-")
		}
		help := command(t, "../../bin/selvaged", append(args, "--help")...)
		for _, flag := range regexp.MustCompile(`(?m)^ +(?:-\w, )?(--[a-z0-9-]+)`).FindAllStringSubmatch(help, -1) {
			if want := strings.ReplaceAll(flag[1], "-", `\-`); !strings.Contains(page, want+" ") &&
				!strings.Contains(page, want+`\fR`) {
				t.Errorf("%s does not have %s", name, flag[1])
			}
		}
	}
}

const help = `example sets a thing: it's done.

.hidden and a\b begin lines.

Usage:
  selvaged example NAME [flags]

Examples:
  selvaged example --name='a~b'

Available Commands:
  short       Do a thing
  longest-one Do another

Flags:
  -h, --help            help for example
      --name string     name of the thing
      --other strings   one that needs no more

Global Flags:
      --all   everything

Use "selvaged example [command] --help" for more information about a command.
`

const page = `.TH SELVAGED\-EXAMPLE 8 2026-01-02 "selvage v1" "System Administration"
.SH NAME
selvaged\-example \- Set a thing
.SH SYNOPSIS
.nf
selvaged example NAME [flags]
.fi
.SH DESCRIPTION
example sets a thing: it\(aqs done.
.PP
\&.hidden and a\eb begin lines.
.SH COMMANDS
.TP
\fBshort\fR
Do a thing
.TP
\fBlongest\-one\fR
Do another
.SH OPTIONS
.TP
\fB\-h, \-\-help\fR
help for example
.TP
\fB\-\-name string\fR
name of the thing
.TP
\fB\-\-other strings\fR
one that needs no more
.TP
\fB\-\-all\fR
everything
.SH EXAMPLES
.nf
selvaged example \-\-name=\(aqa\(tib\(aq
.fi
.SH SEE ALSO
\fBselvaged\fR(8)
`

func TestManPage(t *testing.T) {
	h := ParseHelp([]string{"selvaged", "example"}, "Set a thing", help)
	pages := []Help{{Command: []string{"selvaged"}}, h}
	if got := ManPage(h, pages, "v1", created); got != page {
		t.Errorf("the man page is\n%s\nwant\n%s", got, page)
	}
}
