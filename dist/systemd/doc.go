// Package systemd holds the systemd units of selvage, and their tests. The first line of each file says where it is
// installed. Documentation/systemd.md describes them.
package systemd
