// Package completion has real shells complete what is typed, by the scripts that selvaged makes. It is a module of its own, since those
// shells are nothing that make test should need.
package completion
