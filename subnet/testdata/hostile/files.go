// Package hostile holds the text files of the hostile corpus. Package subnettest reads them, and says what they are.
package hostile

import "embed"

// Files are the *.jsonl files of this directory.
//
//go:embed *.jsonl
var Files embed.FS
