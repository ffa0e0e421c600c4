package main

import (
	"context"
	"path/filepath"

	"github.com/selvage-net/selvage/network/command"
	"github.com/selvage-net/selvage/network/userspace"
	"github.com/selvage-net/selvage/network/userspace/program"
)

// programOf returns which program runs, by the name that it was started as, and what it is called in errors.
func programOf(path string) (name string, run func(context.Context, []string) error) {
	switch filepath.Base(path) {
	case command.PluginName:
		return "kubectl selvage", executePlugin
	case userspace.ProgramName:
		return userspace.ProgramName, program.Run
	}
	return "selvaged", execute
}

// executePlugin runs the program as a plugin of kubectl.
func executePlugin(ctx context.Context, args []string) error {
	root := command.Plugin(version)
	root.SetArgs(args)
	return root.ExecuteContext(ctx)
}
