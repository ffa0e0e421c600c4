package command

import (
	"fmt"
	"slices"
	"strings"
)

// envLines are the lines of an environment file as systemd reads it (systemd.exec(5), EnvironmentFile=): NAME=VALUE,
// the value bare or in quotes. Lines that begin with # or ; are comments.
type envLines []string

func parseEnv(text string) envLines {
	if text == "" {
		return nil
	}
	return strings.Split(strings.TrimSuffix(text, "\n"), "\n")
}

func (l envLines) String() string {
	if len(l) == 0 {
		return ""
	}
	return strings.Join(l, "\n") + "\n"
}

// assignment splits a line. ok is false for a comment and for what assigns nothing.
func assignment(line string) (name, value string, ok bool) {
	line = strings.TrimSpace(line)
	if strings.HasPrefix(line, "#") || strings.HasPrefix(line, ";") {
		return "", "", false
	}
	name, value, ok = strings.Cut(line, "=")
	name, value = strings.TrimSpace(name), strings.TrimSpace(value)
	if n := len(value); n >= 2 && (value[0] == '"' || value[0] == '\'') && value[n-1] == value[0] {
		quote := value[0]
		if value = value[1 : n-1]; quote == '"' {
			value = strings.NewReplacer(`\\`, `\`, `\"`, `"`, `\$`, `$`, "\\`", "`").Replace(value)
		}
	}
	return name, value, ok && name != ""
}

// lookup returns the value of a variable: of several assignments, the last one counts.
func (l envLines) lookup(name string) (value string, ok bool) {
	for _, line := range slices.Backward(l) {
		if n, v, is := assignment(line); is && n == name {
			return v, true
		}
	}
	return "", false
}

// with returns the lines with a variable set, in its place if it is set already.
func (l envLines) with(name, value string) (envLines, error) {
	if strings.ContainsAny(value, "\n\r\x00") {
		return nil, fmt.Errorf("the value of %s has a line break or a NUL: an environment file cannot hold it", name)
	}
	line := name + "=" + value
	if strings.ContainsAny(value, " \t\"'\\$`#;") {
		line = name + `="` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, `$`, `\$`, "`", "\\`").Replace(value) + `"`
	}
	l = slices.Clone(l)
	at := slices.IndexFunc(l, func(x string) bool { n, _, is := assignment(x); return is && n == name })
	if at < 0 {
		return append(l, line), nil
	}
	l[at] = line
	again := func(x string) bool { n, _, is := assignment(x); return is && n == name }
	return append(l[:at+1], slices.DeleteFunc(l[at+1:], again)...), nil
}
