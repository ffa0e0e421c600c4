package page

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/selvage-net/selvage/dist/lab"
	"github.com/selvage-net/selvage/dist/lab/sandbox"
	"github.com/selvage-net/selvage/dist/lab/testctx"
)

func TestMain(m *testing.M) { os.Exit(sandbox.Run(m.Run)) }

var update = flag.Bool("update", false, "write the pictures of the documentation")

// browser is a page that is open in Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context

	mu   sync.Mutex
	said []string // errors of scripts, and what the browser reports, such as a violated policy
}

// output is what Chromium writes.
type output struct {
	mu  sync.Mutex
	all []byte
}

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.all = append(o.all, b...)
	return len(b), nil
}

func (o *output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(o.all)
}

// openPage starts Chromium, without a window, and opens a page in it.
func openPage(t *testing.T, url string) *browser {
	t.Helper()
	dir, err := os.MkdirTemp("", "chromium-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) }) // a process that is just ending may still write; the sandbox's /tmp ends with it
	out := &output{}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("Chromium's output:\n%s", out)
		}
	})
	ctx, cancel := chromedp.NewExecAllocator(testctx.New(t), chromedp.ExecPath("/usr/bin/chromium"), chromedp.UserDataDir(dir),
		chromedp.Headless, chromedp.NoSandbox, chromedp.DisableGPU, chromedp.NoFirstRun, chromedp.WindowSize(1280, 900),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-background-networking", true),
		chromedp.Flag("disable-component-update", true), chromedp.Flag("disable-sync", true), chromedp.Flag("disable-dev-shm-usage", true),
		chromedp.WSURLReadTimeout(lab.TestPatience), chromedp.CombinedOutput(out),
		// By default it would be killed at the end of the thread that started it, which may be one that entered a node's namespaces.
		chromedp.ModifyCmdFunc(func(*exec.Cmd) {}))
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	b := &browser{t: t, ctx: ctx}
	chromedp.ListenTarget(ctx, func(event any) {
		b.mu.Lock()
		defer b.mu.Unlock()
		switch e := event.(type) {
		case *runtime.EventExceptionThrown:
			b.said = append(b.said, e.ExceptionDetails.Error())
		case *log.EventEntryAdded:
			b.said = append(b.said, fmt.Sprintf("%s: %s", e.Entry.Level, e.Entry.Text))
		}
	})
	b.do(log.Enable(), chromedp.EmulateViewport(1280, 760), chromedp.Navigate(url))
	t.Cleanup(func() {
		b.mu.Lock()
		defer b.mu.Unlock()
		if len(b.said) > 0 {
			t.Errorf("the browser says:\n%s", strings.Join(b.said, "\n"))
		}
	})
	return b
}

func (b *browser) do(actions ...chromedp.Action) {
	b.t.Helper()
	if err := chromedp.Run(b.ctx, actions...); err != nil {
		b.t.Fatal(err)
	}
}

// eval returns what an expression is in the page, as a text.
func (b *browser) eval(expression string) (text string) {
	b.t.Helper()
	b.do(chromedp.Evaluate("String("+expression+")", &text))
	return text
}

// await waits until an expression contains a text.
func (b *browser) await(expression, want string) {
	b.t.Helper()
	last := ""
	testctx.Eventually(b.t, func() string {
		if last = b.eval(expression); strings.Contains(last, want) {
			return ""
		}
		return fmt.Sprintf("%s is %q, want %q", expression, last, want)
	})
}

// text returns the expression for an element's text.
func text(selector string) string {
	return fmt.Sprintf("document.querySelector(%q)?.innerText", selector)
}

// key presses a key.
func (b *browser) key(keys ...string) {
	b.t.Helper()
	for _, k := range keys {
		b.do(chromedp.KeyEvent(k))
	}
}

// picture writes what the browser shows to Documentation, with -update.
func (b *browser) picture(name string) {
	b.t.Helper()
	var png []byte
	b.do(chromedp.Evaluate("scrollTo(0, 0)", nil), chromedp.Screenshot("body", &png, chromedp.ByQuery))
	path := filepath.Join("..", "..", "Documentation", "pictures", name+".png")
	if len(png) == 0 {
		b.t.Errorf("no picture of %s", name)
	}
	if *update {
		if err := os.WriteFile(path, png, 0o644); err != nil {
			b.t.Fatal(err)
		}
	}
}
