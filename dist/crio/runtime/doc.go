// Package runtime pins CRI-O, which Debian does not have. It is a module of its own, and in no workspace (GOWORK=off), so
// that what it needs is nobody else's.
package runtime
