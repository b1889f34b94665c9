package cli

import "github.com/spf13/cobra"

// UsageErrors makes wrong arguments of root and every command below it errors of usage, with their exit code. A command
// that only groups others refuses a name that it does not know instead of printing its help with code 0.
func UsageErrors(root *cobra.Command) {
	check := root.Args
	if root.HasSubCommands() && !root.Runnable() {
		check = func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return Usagef("unknown command %q for %q; see %s --help", args[0], cmd.CommandPath(), cmd.CommandPath())
			}
			return Usagef("%s needs a command; see %s --help", cmd.CommandPath(), cmd.CommandPath())
		}
		root.RunE = func(*cobra.Command, []string) error { return nil } // never reached: cobra asks Args of runnable commands only
	}
	if check != nil {
		root.Args = func(cmd *cobra.Command, args []string) error {
			if err := check(cmd, args); err != nil {
				return Exit(ExitUsage, err)
			}
			return nil
		}
	}
	for _, sub := range root.Commands() {
		UsageErrors(sub)
	}
}
