// Package systemd has the units by which systemd runs selvage, and tests of them. Each file says where it is installed.
// Documentation/systemd.md says what they are for.
package systemd
