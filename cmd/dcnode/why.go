package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

func whyCommand(t *terminal) *cobra.Command {
	return &cobra.Command{
		Use: "why MACHINE", Short: "Say what a machine waits for, and who owes it", Args: exactly("MACHINE"),
		Long: "Says how far a machine or its move has come, since when and until when, which event is\nmissing and which member owes it. Ask any member; the one where the machine is knows most.",
		RunE: func(c *cobra.Command, args []string) error {
			cl, err := t.client()
			if err != nil {
				return err
			}
			w, err := cl.Why(c.Context(), args[0])
			if err != nil {
				return err
			}
			return t.print(w, func() {
				for _, words := range w.Words {
					fmt.Fprintln(t.out, words)
				}
			})
		},
	}
}
