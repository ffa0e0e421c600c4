package chaosstore

import (
	"context"
	"slices"
	"time"
)

// Fault is something that can happen to the store, or to a daemon because of it.
type Fault struct {
	Name  string
	Scene Scene
	// Prepare is done before anything is measured.
	Prepare func(context.Context, *run) error
	// Do does it and ends it. Some time after that, or after [run.over], all is to be right.
	Do func(context.Context, *run) error
	// Check says what is wrong although all nodes agree.
	Check func(context.Context, *run) error
	// After cleans up.
	After func(context.Context, *run) error
	// Pairs are the nodes that datagrams are sent between; nil: from each to the next. Only where pods are meant to be cut off
	// it is not all.
	Pairs [][2]int
	// Moves: nodes may have other subnets after it.
	Moves bool
	// Spoils: the lab is of no use after it, because pods have addresses of subnets that their node has no more.
	Spoils bool
	// Within is how long it may take until all is right; 0: as long as a retry's longest pause, and a little.
	Within time.Duration
	// Brief is for the faults of the short test.
	Brief bool
}

func (f Fault) within() time.Duration {
	if f.Within != 0 {
		return f.Within
	}
	return 15 * time.Second
}

func (f Fault) pairs() [][2]int {
	if f.Pairs != nil {
		return f.Pairs
	}
	return [][2]int{{0, 1}, {1, 2}, {2, 0}}
}

// The scenes: one member, three, and three as a cluster ought to be run.
func single() Scene { return Scene{Members: 1} }
func three() Scene  { return Scene{Members: 3} }
func secure() Scene { return Scene{Members: 3, Secure: true} }

// afterRegress is how long it may take after a wipe or a restore: the nodes spread their lists over ten seconds.
const afterRegress = 25 * time.Second

// Faults lists what can be broken.
func Faults() []Fault {
	return slices.Concat(outages(), histories(), members(), limits(), security(), races())
}

// everywhere returns a fault for each of the scenes; what a name ends with tells them apart.
func everywhere(f Fault, scenes ...Scene) (faults []Fault) {
	for i, s := range scenes {
		f.Scene = s
		f.Brief = f.Brief && i == 0
		faults = append(faults, f)
	}
	return faults
}
