package shots

// Draw draws every screenshot into a folder.
func Draw(dir string) error { return nil }
