package bench

import "context"

func Settings() []string { return nil }
func settings(ctx context.Context, b *bench) error { return nil }
