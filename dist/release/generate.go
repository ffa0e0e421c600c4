package release

import (
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"time"
)

// Generate runs the daemon's program for its completions and the help of its commands, and returns the completions and
// man pages by file name.
func Generate(selvaged, version string, at time.Time) (map[string]File, error) {
	run := func(args ...string) (string, error) {
		cmd := exec.Command(selvaged, args...)
		cmd.Env = []string{} // no variable of this machine is shown as a default
		out, err := cmd.Output()
		if err != nil {
			return "", fmt.Errorf("%s %s: %w", selvaged, strings.Join(args, " "), err)
		}
		return string(out), nil
	}
	files := map[string]File{}
	add := func(name, text string) { files[name] = File{Mode: 0o644, Data: []byte(text)} }
	for shell, name := range map[string]string{"bash": "selvaged.bash", "zsh": "_selvaged", "fish": "selvaged.fish"} {
		text, err := run("completion", shell)
		if err != nil {
			return nil, err
		}
		add(name, text)
	}
	var pages []Help
	var visit func(args []string, short string) error
	visit = func(args []string, short string) error {
		text, err := run(append(slices.Clone(args), "--help")...)
		if err != nil {
			return err
		}
		h := ParseHelp(append([]string{"selvaged"}, args...), short, text)
		// For a command that is unknown, the help is that of the command above.
		if !strings.HasPrefix(strings.TrimSpace(h.Usage)+" ", strings.Join(h.Command, " ")+" ") || len(h.Flags) == 0 {
			return fmt.Errorf("%s --help shows no usage of this command or no flags: its format has changed",
				strings.Join(h.Command, " "))
		}
		pages = append(pages, h)
		for _, c := range h.Commands {
			if c.Name == "help" || c.Name == "completion" { // the same in each program of this kind
				continue
			}
			if err := visit(append(slices.Clone(args), c.Name), c.Text); err != nil {
				return err
			}
		}
		return nil
	}
	if err := visit(nil, "daemon of selvage, an overlay network for containers"); err != nil {
		return nil, err
	}
	for _, h := range pages {
		add(strings.Join(h.Command, "-")+".8", ManPage(h, pages, version, at))
	}
	return files, nil
}

// Help is the help of a command, as `--help` prints it.
type Help struct {
	Command  []string // selvaged, policy, test
	Short    string   // from the list of commands of the command above
	Long     string
	Usage    string
	Examples string
	Commands []Item
	Flags    []Item
}

// Item is a command or a flag, with its description.
type Item struct{ Name, Text string }

var (
	section  = regexp.MustCompile(`(?m)^(Usage|Examples|Available Commands|Flags|Global Flags):\n`)
	commands = regexp.MustCompile(`^(\S+)\s+(\S.*)$`)           // one space follows the longest name
	flags    = regexp.MustCompile(`^(.*?\S)(?:\s{2,}(\S.*))?$`) // with the type, as in --wait duration
)

// ParseHelp reads the help of a command.
func ParseHelp(command []string, short, text string) Help {
	text, _, _ = strings.Cut(text, "\nUse \"")
	h := Help{Command: command, Short: short}
	at := section.FindAllStringSubmatchIndex(text, -1)
	end := len(text)
	for _, m := range slices.Backward(at) {
		body := strings.Trim(text[m[1]:end], "\n")
		switch text[m[2]:m[3]] {
		case "Usage":
			h.Usage = body
		case "Examples":
			h.Examples = body
		case "Available Commands":
			h.Commands = items(commands, body)
		default:
			h.Flags = append(items(flags, body), h.Flags...)
		}
		end = m[0]
	}
	h.Long = strings.TrimSpace(text[:end])
	return h
}

func items(columns *regexp.Regexp, body string) (list []Item) {
	for line := range strings.Lines(body) {
		if m := columns.FindStringSubmatch(strings.TrimSpace(line)); m != nil {
			list = append(list, Item{Name: m[1], Text: m[2]})
		}
	}
	return list
}

// ManPage returns a page of section 8 in the man macros (man(7), groff_man(7)). pages are those that it may refer to.
func ManPage(h Help, pages []Help, version string, at time.Time) string {
	name := strings.Join(h.Command, "-")
	var b strings.Builder
	line := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	block := func(text string) { line(".nf\n%s\n.fi", escape(text)) }
	line(`.TH %s 8 %s "selvage %s" "System Administration"`, escape(strings.ToUpper(name)),
		at.UTC().Format(time.DateOnly), escape(version))
	line(".SH NAME\n%s \\- %s", escape(name), escape(h.Short))
	line(".SH SYNOPSIS")
	block(unindent(h.Usage))
	line(".SH DESCRIPTION\n%s", strings.ReplaceAll(escape(h.Long), "\n\n", "\n.PP\n"))
	list := func(title string, items []Item) {
		if len(items) > 0 {
			line(".SH %s", title)
		}
		for _, i := range items {
			line(".TP\n\\fB%s\\fR\n%s", escape(i.Name), escape(i.Text))
		}
	}
	list("COMMANDS", h.Commands)
	list("OPTIONS", h.Flags)
	if h.Examples != "" {
		line(".SH EXAMPLES")
		block(unindent(h.Examples))
	}
	var also []string
	for _, p := range pages {
		if other := strings.Join(p.Command, "-"); other != name {
			also = append(also, "\\fB"+escape(other)+"\\fR(8)")
		}
	}
	line(".SH SEE ALSO\n%s", strings.Join(also, ",\n"))
	return b.String()
}

// escape makes a text what roff prints: characters that can be copied (groff_char(7)), no line that begins a request.
func escape(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`,
		"…", "...", "→", `\(->`).Replace(text)
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if strings.HasPrefix(l, ".") {
			lines[i] = `\&` + l
		}
	}
	return strings.Join(lines, "\n")
}

func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		lines[i] = strings.TrimPrefix(l, "  ")
	}
	return strings.Join(lines, "\n")
}
