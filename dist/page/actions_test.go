package page

import (
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// click clicks an element.
func click(selector string) chromedp.Action { return chromedp.Click(selector, chromedp.ByQuery) }

// evaluateAsync waits for a promise.
func evaluateAsync(expression string, into any) chromedp.Action {
	return chromedp.Evaluate(expression, into, func(p *runtime.EvaluateParams) *runtime.EvaluateParams { return p.WithAwaitPromise(true) })
}
