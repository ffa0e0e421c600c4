package main

import (
	"context"
	"path/filepath"

	"github.com/selvage-net/selvage/network/command"
)

// programOf returns which program runs, by the name that it was started as, and what it is called in errors.
func programOf(path string) (name string, run func(context.Context, []string) error) {
	if filepath.Base(path) == command.PluginName {
		return "kubectl selvage", executePlugin
	}
	return "selvaged", execute
}

// executePlugin runs the program as a plugin of kubectl.
func executePlugin(ctx context.Context, args []string) error {
	root := command.Plugin(version)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}
