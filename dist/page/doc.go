// Package page tests the web page of selvaged mesh in a real browser, Chromium without a window, by the DevTools
// protocol. It is a module of its own, so that the product does not depend on what drives the browser.
package page
