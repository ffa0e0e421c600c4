package serverlog

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sirupsen/logrus"
)

// TestLimit logs many lines at one time, and one more after the window.
func TestLimit(t *testing.T) {
	var out strings.Builder
	to := logrus.New()
	to.SetOutput(&out)
	at := time.Unix(0, 0)
	l := New(to, "api: ", func() time.Time { return at })
	for i := range 100 {
		l.Println("accept error", i)
	}
	if n := strings.Count(out.String(), "api: accept error"); n < 1 || n > lines ||
		strings.Count(out.String(), "api: more warnings") != 1 {
		t.Errorf("of 100 lines, logged were\n%s", out.String())
	}
	out.Reset()
	at = at.Add(2 * window)
	l.Println("later")
	if want := fmt.Sprintf("level=warning msg=%q", "api: later"); !strings.Contains(out.String(), want) {
		t.Errorf("after the window: %s", out.String())
	}
}
