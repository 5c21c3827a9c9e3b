package testnet

import (
	"flag"
	"path/filepath"
	"testing"
)

var kills = flag.Int("kills", 5, "how often the kill tests kill a member")

func TestKilledMembersLoseNothingAndNeverContradictThemselves(t *testing.T) {
	for name, members := range map[string]int{"one of four": 4, "two of seven": 7} {
		t.Run(name, func(t *testing.T) {
			rep, err := Kill(t.Context(), KillOptions{
				Members: members, Kills: *kills, Program: filepath.Join(built(t), "dcnode"), Out: t.Output(),
			})
			t.Logf("%+v", rep)
			if err != nil {
				t.Fatal(err)
			}
			if rep.Kills < *kills || rep.Submitted < int64(*kills) || rep.Ordered == 0 {
				t.Errorf("hardly anything happened: %+v", rep)
			}
		})
	}
}
