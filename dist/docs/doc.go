// Package docs holds the documentation to what it speaks of: its links lead somewhere, and the flags, make targets and
// commands that it names exist.
package docs
