package results

import (
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestGinkgo(t *testing.T) {
	const report = `[{"SpecReports": [
		{"LeafNodeType": "SynchronizedBeforeSuite", "State": "passed"},
		{"ContainerHierarchyTexts": ["[sig] A", "B"], "LeafNodeType": "It", "LeafNodeText": "passes",
			"State": "passed", "RunTime": 1500000000},
		{"ContainerHierarchyTexts": ["[sig] A", "B"], "LeafNodeType": "It", "LeafNodeText": "is not asked for",
			"State": "skipped"},
		{"ContainerHierarchyTexts": ["[sig] A", "B"], "LeafNodeType": "It", "LeafNodeText": "skips", "State": "skipped",
			"Failure": {"Message": "no SCTP"}},
		{"ContainerHierarchyTexts": ["[sig] A", "B"], "LeafNodeType": "It", "LeafNodeText": "fails",
			"State": "timedout",
			"Failure": {"Message": "late"}},
		{"LeafNodeType": "SynchronizedAfterSuite", "State": "failed", "Failure": {"Message": "left"}}
	]}]`
	got, err := Ginkgo("e2e", []byte(report))
	want := []Case{
		{Suite: "e2e", Name: "[sig] A B passes", Outcome: Passed, Took: 1500 * time.Millisecond},
		{Suite: "e2e", Name: "[sig] A B skips", Outcome: NotRun, Reason: "no SCTP"},
		{Suite: "e2e", Name: "[sig] A B fails", Outcome: Failed, Reason: "late"},
		{Suite: "e2e", Name: "SynchronizedAfterSuite", Outcome: Failed, Reason: "left"},
	}
	compare(t, got, err, want)
	if _, err := Ginkgo("e2e", []byte("{}")); err == nil {
		t.Error("an object is a report")
	}
}

func TestJUnit(t *testing.T) {
	const report = `<JUnitTestSuite name="cyclonus" failures="1">
		<testcase name="passes" time="2.5"></testcase>
		<testcase name="fails"><failure message="wrong" type=""></failure></testcase>
		<testcase name="skips"><skipped message="no SCTP"></skipped></testcase>
	</JUnitTestSuite>`
	got, err := JUnit("cyclonus", []byte(report))
	compare(t, got, err, []Case{
		{Suite: "cyclonus", Name: "passes", Outcome: Passed, Took: 2500 * time.Millisecond},
		{Suite: "cyclonus", Name: "fails", Outcome: Failed, Reason: "wrong"},
		{Suite: "cyclonus", Name: "skips", Outcome: NotRun, Reason: "no SCTP"},
	})
	if _, err := JUnit("cyclonus", nil); err == nil {
		t.Error("nothing is a report")
	}
}

func TestGoTest(t *testing.T) {
	const events = `
		{"Action":"start"}
		{"Action":"run","Test":"T"}
		{"Action":"run","Test":"T/a"}
		{"Action":"run","Test":"T/a/1"}
		{"Action":"output","Test":"T/a/1","Output":"=== RUN   T/a/1\n"}
		{"Action":"pass","Test":"T/a/1","Elapsed":2}
		{"Action":"run","Test":"T/a/2"}
		{"Action":"output","Test":"T/a/2","Output":"    x.go:1: refused\n"}
		{"Action":"output","Test":"T/a/2","Output":"    --- FAIL: T/a/2 (0.00s)\n"}
		{"Action":"fail","Test":"T/a/2","Elapsed":0}
		{"Action":"fail","Test":"T/a","Elapsed":2}
		{"Action":"run","Test":"T/b"}
		{"Action":"output","Test":"T/b","Output":"    x.go:2: not supported\n"}
		{"Action":"skip","Test":"T/b","Elapsed":0}
		{"Action":"run","Test":"T/c"}
		{"Action":"run","Test":"T/c/1"}
		{"Action":"pass","Test":"T/c/1","Elapsed":0}
		{"Action":"fail","Test":"T/c","Elapsed":0}
		{"Action":"fail","Test":"T","Elapsed":2}
		{"Action":"run","Test":"U"}
		{"Action":"fail"}`
	var seen []string
	got, err := GoTest("cluster", strings.NewReader(events), func(c Case) { seen = append(seen, c.Name) })
	compare(t, got, err, []Case{
		{Suite: "cluster", Name: "T/a/1", Outcome: Passed, Took: 2 * time.Second},
		{Suite: "cluster", Name: "T/a/2", Outcome: Failed, Reason: "x.go:1: refused"},
		{Suite: "cluster", Name: "T/b", Outcome: NotRun, Reason: "x.go:2: not supported"},
		{Suite: "cluster", Name: "T/c", Outcome: Failed},
		{Suite: "cluster", Name: "T/c/1", Outcome: Passed},
		{Suite: "cluster", Name: "U", Outcome: Failed, Reason: "it did not end"},
	})
	if want := []string{"T/a/1", "T/a/2", "T/b", "T/c/1"}; !reflect.DeepEqual(seen, want) {
		t.Errorf("seen %q, want %q", seen, want)
	}
	if _, err := GoTest("cluster", strings.NewReader("PASS"), nil); err == nil {
		t.Error("text is events")
	}
}

func compare(t *testing.T, got []Case, err error, want []Case) {
	t.Helper()
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v\n%+v\nwant\n%+v", err, got, want)
	}
}

func TestWriteTable(t *testing.T) {
	cases := []Case{
		{Suite: "e2e", Name: "b", Outcome: Failed, Reason: "\nrefused\nand more", Took: time.Second},
		{Suite: "e2e", Name: "a", Outcome: Passed, Took: 90 * time.Second},
		{Suite: "cyclonus", Name: "c", Outcome: NotRun, Reason: "no SCTP"},
	}
	const want = `passed     90.0s  e2e      a
not run     0.0s  cyclonus c
                          no SCTP
failed      1.0s  e2e      b
                          refused
e2e: 1 passed, 1 failed, 0 not run
cyclonus: 0 passed, 0 failed, 1 not run
1 passed, 1 failed, 1 not run
`
	var b strings.Builder
	if err := WriteTable(&b, cases); err != nil || b.String() != want {
		t.Errorf("got %v\n%s\nwant\n%s", err, &b, want)
	}
}
