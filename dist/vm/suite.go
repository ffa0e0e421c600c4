package vm

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// Suite is tests of one package.
type Suite struct {
	Name string // of the suite: what a case is called is NAME/TEST
	Dir  string // of the package, relative to the repository
	Env  []string
	// Tests are names of top-level tests; none stands for all of the package. Each is a case, and runs in a process of its
	// own, so that one that hangs does not keep the others from running.
	Tests []string
	// Without are tests of the package that are no cases, each with the reason.
	Without map[string]string
	// Short are those of Tests that run with --short, and Long those that run only with --long, or by their name.
	Short, Long []string
}

// Cases returns the names of the suite's cases.
func (s Suite) Cases() (names []string) {
	for _, test := range s.Tests {
		names = append(names, s.Name+"/"+test)
	}
	return names
}

// testFunction is how the source of a top-level test begins.
var testFunction = regexp.MustCompile(`(?m)^func (Test\w+)\(\w+ \*testing\.T\)`)

// Complete returns the suite with the names of all tests of its package, if it has none.
func (s Suite) Complete(repository string) (Suite, error) {
	if s.Tests != nil {
		return s, nil
	}
	files, err := filepath.Glob(filepath.Join(repository, s.Dir, "*_test.go"))
	if err == nil && len(files) == 0 {
		err = errors.New("it has no tests")
	}
	for _, file := range files {
		text, e := os.ReadFile(file)
		err = errors.Join(err, e)
		for _, m := range testFunction.FindAllSubmatch(text, -1) {
			if name := string(m[1]); s.Without[name] == "" {
				s.Tests = append(s.Tests, name)
			}
		}
	}
	if err != nil {
		return s, fmt.Errorf("list the tests of %s: %w", s.Dir, err)
	}
	return s, nil
}

// Choose returns suites with only the cases that match a pattern. Without a pattern, those are all but the long ones;
// with short, the short ones; with long, all.
func Choose(suites []Suite, pattern *regexp.Regexp, short, long bool) (chosen []Suite) {
	named := pattern.String() != ""
	for _, s := range suites {
		all := s.Tests
		if short {
			all = s.Short
		}
		s.Tests = nil
		for _, test := range all {
			if pattern.MatchString(s.Name+"/"+test) && (long || named || !slices.Contains(s.Long, test)) {
				s.Tests = append(s.Tests, test)
			}
		}
		if len(s.Tests) > 0 {
			chosen = append(chosen, s)
		}
	}
	return chosen
}

// Plan is what the first process in the virtual machine has to do. It is [PlanFile], in JSON.
type Plan struct {
	Modules []string // files of kernel modules, in the order of loading
	Env     []string // of every process
	Runs    []Run
}

// PlanFile is where the [Plan] is.
const PlanFile = "/plan.json"

// PartVariable is the environment variable of the first process that says which runs of the plan it has: "0/2" stands
// for the first of every two.
const PartVariable = "VM_PART"

// Part returns those runs of a plan that a virtual machine has. Without a part, it has all.
func (p Plan) Part(part string) (runs []Run, err error) {
	var i, of int
	if part == "" {
		return p.Runs, nil
	}
	if n, err := fmt.Sscanf(part, "%d/%d", &i, &of); n != 2 || i < 0 || i >= of {
		return nil, fmt.Errorf("%s=%q: %w, want one like 0/2", PartVariable, part, err)
	}
	for at, r := range p.Runs {
		if at%of == i {
			runs = append(runs, r)
		}
	}
	return runs, nil
}

// Run is the process of a case.
type Run struct {
	Case string
	Dir  string
	Argv []string
	Env  []string
}

// Lines of the first process between those that tests print. A line of a test that began like one of these would be
// mistaken for it.
const (
	mark = "@vm "
	// BootedMark comes once, with the kernel's release and how long the first process took until then.
	BootedMark = mark + "booted "
	beginMark  = mark + "begin "
	endMark    = mark + "end "
	// TroubleMark comes before what the first process could not do.
	TroubleMark = mark + "trouble "
)

// Begin is the line before the output of a case.
func Begin(name string) string { return beginMark + name }

// End is the line after it, with how its process ended.
func End(name string, err error) string {
	if err == nil {
		return endMark + name
	}
	return fmt.Sprintf("%s%s %s", endMark, name, strings.ReplaceAll(err.Error(), "\n", " "))
}
